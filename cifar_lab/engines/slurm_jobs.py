"""The jobs of a sweep in Slurm: seen from whoever waits for them, and from a job itself."""

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
    """Whoever waited for jobs of Slurm was asked to stop; the jobs, by their numbers in Slurm, continue."""

    def __init__(self, received: Signals, jobs: Sequence[str]) -> None:
        super().__init__(received)
        self.jobs = " ".join(jobs)

    @property
    def message(self) -> str:
        """What happened, and how to continue, in one line."""
        if not self.jobs:
            return super().message
        how = f"scancel {self.jobs} stops them, and once they have ended the same command trains what is unfinished"
        return f"interrupted by {self}; jobs {self.jobs} continue in Slurm: {how}"


class SlurmJobs(Jobs):
    """The jobs of a command line, each of which a process somewhere in the cluster runs."""

    looks_again = False  # jobs of another command are in the queue already

    def is_settled(self, run: Run) -> bool:
        """Whether nothing is left to do for a job whose command line has left this run."""
        # A run that finished after the last edit of the options belongs to the job's words. An older run may belong
        # to the options before the edit; the job itself checks that.
        return super().is_settled(run) and run.result_file.stat().st_mtime > self.plan.options_edited

    def handed(self, numbers: Sequence[int]) -> Handed:
        """The task as a job of Slurm gets it, which is one of those that are queued."""
        assert self.plan.common is not None
        return _HandedToSlurm(
            self.task, self.plan.common, range(len(numbers)), array("f", [0]) * len(numbers), 1, self.plan.former
        )

    def due(self, numbers: Sequence[int]) -> list[int]:
        """The jobs to be queued: one whose run has finished would wait in Slurm to find that."""
        return [number for number in numbers if self.unfinished[number]]

    def arrays(self, due: Sequence[int]) -> list[Sequence[int]]:
        """The jobs that are queued together, at most `hydra.sweeper.max_batch_size` of them."""
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
                    queue.wait()  # submitit waits no further than to the first that has failed
        self.look()
        for number in [number for number in self.left if Run(self.folders[number]).state() == "dead"]:
            self.left.remove(number)
            line = f"{self.folders[number]} was killed; the same command resumes it"
            self.failures.append(RunFailedError(line))


class _HandedToSlurm(Handed):
    def __call__(self, config: DictConfig) -> None:
        """Train; the process ends as one of a single run does, so that Slurm knows how it went."""
        # Before torch is imported, which takes all cores of the node where Slurm does not bind the job to its own.
        count = processes(config) or int(os.environ.get("SLURM_GPUS_ON_NODE", 1))
        cores = int(os.environ.get("SLURM_CPUS_PER_TASK", 1)) // count
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
        from submitit.core.utils import UncompletedJobError

        try:
            super().__call__(config)
        except Interrupted as interrupted:
            end(interrupted.message, interrupted.exit_code)
        except UncompletedJobError as error:  # it was saved, and has been requeued as often as allowed
            end(str(error), exit_codes.FAILED)

    def failed(self, error: RunFailedError) -> None:
        sys.exit(error.exit_code)


class _Detaching(Interruption):
    """Stops waiting at once: a signal on a login node stops the waiting process, not the jobs."""

    def __init__(self, jobs: Callable[[], Sequence[str]]) -> None:
        super().__init__()
        self._jobs = jobs

    def _note(self, number: int, frame: FrameType | None) -> None:
        raise DetachedError(Signals(number), self._jobs())
