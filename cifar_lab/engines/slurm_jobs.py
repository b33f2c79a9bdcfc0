"""Run the jobs of a sweep in Slurm: the waiting process, and the process of a job."""

import os
import sys
from array import array
from collections.abc import Callable, Sequence
from signal import Signals
from types import FrameType

from omegaconf import DictConfig

from cifar_lab.config.devices import processes
from cifar_lab.engines.handover import Handed, RunFailedError, end
from cifar_lab.engines.in_turn import Jobs
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interrupted, Interruption
from cifar_lab.runs import Run


class DetachedError(Interrupted):
    """The process that waits for Slurm's jobs was interrupted. The jobs, given by their Slurm numbers, continue."""

    def __init__(self, received: Signals, jobs: Sequence[str]) -> None:
        super().__init__(received)
        self.jobs = " ".join(jobs)

    @property
    def message(self) -> str:
        """The signal, and how to stop or resume the jobs, in one line."""
        if not self.jobs:
            return super().message
        how = f"scancel {self.jobs} stops them, after which the same command trains the unfinished runs"
        return f"interrupted by {self}; jobs {self.jobs} continue in Slurm: {how}"


class SlurmJobs(Jobs):
    """The jobs of a command line, each run by a process in the cluster."""

    looks_again = False  # another command's jobs are already queued

    def is_settled(self, run: Run) -> bool:
        """Return whether there is nothing left to do for the job of this run."""
        # A run that finished after the last edit of the option files belongs to the job's words. An older run may
        # belong to the options before the edit, which the job itself checks.
        return super().is_settled(run) and run.result_file.stat().st_mtime > self.plan.options_edited

    def handed(self, numbers: Sequence[int]) -> Handed:
        """Return the task for a job of Slurm; it counts queued jobs only."""
        assert self.plan.common is not None
        return _HandedToSlurm(
            self.task, self.plan.common, range(len(numbers)), array("f", [0]) * len(numbers), 1, self.plan.former
        )

    def due(self, numbers: Sequence[int]) -> list[int]:
        """Return the jobs to queue. A finished one would wait in Slurm only to find its result."""
        return [number for number in numbers if self.unfinished[number]]

    def arrays(self, due: Sequence[int]) -> list[Sequence[int]]:
        """Return the jobs in batches that are queued together, of at most `hydra.sweeper.max_batch_size`."""
        largest = self.plan.composed(self.plan.jobs[0]).hydra.sweeper.max_batch_size or len(due)
        return [due[first : first + largest] for first in range(0, len(due), largest)]

    def run(self, numbers: Sequence[int]) -> None:
        """Queue the unfinished jobs, wait for them, and read their outcome.

        Raises:
            DetachedError: A signal was received.
            ValueError: Slurm refused the jobs.
        """
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        from cifar_lab.engines.slurm_queue import watched

        if due := self.due(numbers):
            with watched() as queue, _Detaching(lambda: queue.jobs).listening():
                try:
                    for batch in self.arrays(due):
                        self.launcher(batch).launch(self.words(batch), initial_job_idx=0)
                except (UncompletedJobError, FailedSubmissionError) as error:
                    if not queue.jobs:
                        line = f"Slurm has refused the jobs: {' '.join(str(error).split())}"
                        raise exit_codes.UsageError(line) from None
                    queue.wait()  # submitit stops waiting at the first failed job
        self.look()
        for number in [number for number in self.left if Run(self.folders[number]).state() == "dead"]:
            self.left.remove(number)
            line = f"{self.folders[number]} was killed; the same command resumes it"
            self.failures.append(RunFailedError(line))


class _HandedToSlurm(Handed):
    def __call__(self, config: DictConfig) -> None:
        """Train, and exit with the code of a single run, which Slurm records."""
        # Set before torch is imported. Otherwise torch uses all cores of the node, unless Slurm binds the job.
        count = processes(config) or int(os.environ.get("SLURM_GPUS_ON_NODE", 1))
        cores = int(os.environ.get("SLURM_CPUS_PER_TASK", 1)) // count
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
        from submitit.core.utils import UncompletedJobError

        try:
            super().__call__(config)
        except Interrupted as interrupted:
            end(interrupted.message, interrupted.exit_code)
        except UncompletedJobError as error:  # saved, but requeued as often as allowed
            end(str(error), exit_codes.FAILED)

    def failed(self, error: RunFailedError) -> None:
        sys.exit(error.exit_code)


class _Detaching(Interruption):
    """Stops waiting at once: a signal on a login node ends the waiting process, not the jobs."""

    def __init__(self, jobs: Callable[[], Sequence[str]]) -> None:
        super().__init__()
        self._jobs = jobs

    def _note(self, number: int, frame: FrameType | None) -> None:
        raise DetachedError(Signals(number), self._jobs())
