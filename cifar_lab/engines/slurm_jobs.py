"""The jobs of a sweep in Slurm: seen from whoever waits for them, and from a job itself."""

import os
import sys
from collections.abc import Callable, Sequence
from signal import Signals
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from cifar_lab.config.devices import processes
from cifar_lab.config.naming import own_lines
from cifar_lab.config.preflight import Preflight
from cifar_lab.engines.handover import Jobs, RunFailedError, Task
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interrupted, Interruption
from cifar_lab.runs import Run, Sweep, job_key


class DetachedError(Interrupted):
    """Whoever waited for jobs of Slurm was asked to stop; the jobs go on.

    Args:
        received: The signal.
        jobs: Slurm's numbers.
    """

    def __init__(self, received: Signals, jobs: Sequence[str]) -> None:
        super().__init__(received)
        self.jobs = " ".join(jobs)

    @property
    def told(self) -> str:
        """What has happened, and what can be done, in one line."""
        if not self.jobs:
            return super().told
        how = f"scancel {self.jobs} stops them, and once they have ended the same command trains what is unfinished"
        return f"interrupted by {self}; jobs {self.jobs} go on in Slurm: {how}"


class SlurmJobs(Jobs):
    """The jobs of a command line, each of which a process somewhere in the cluster runs.

    Args:
        task: What to call with each.
        asked: The checked command line.
        sweep: Whose jobs they are.
    """

    def __init__(self, task: Task, asked: Preflight, sweep: Sweep | None) -> None:
        self._options_edited = asked.options_edited
        super().__init__(task, asked, sweep)

    @property
    def due(self) -> set[frozenset[str]]:
        """The jobs to be queued."""
        return {job_key(lines) for lines, is_due in zip(self.planned, self.unfinished, strict=True) if is_due}

    def _is_settled(self, run: Run) -> bool:
        # What has finished since the options were last edited is the run of its words; another's may be one of what
        # they said before, and the job finds out for itself.
        return super()._is_settled(run) and run.result_file.stat().st_mtime > self._options_edited

    def run_all(self, application: Callable[[], object]) -> None:
        """Queue what is unfinished, wait for it, and look at what it has left.

        Raises:
            DetachedError: A signal was received.
            ValueError: Slurm has refused the jobs.
        """
        from cifar_lab.engines.slurm_queue import queued

        due = self.due
        self.total = len(due)
        with (
            queued(lambda lines: job_key(own_lines(lines)) in due) as queue,
            _Detaching(lambda: queue.jobs).listening(),
        ):
            application()
        self._look()
        killed = [folder for folder in self.left if Run(folder).state() == "dead"]
        self.left = [folder for folder in self.left if folder not in killed]
        self.failures += [RunFailedError(f"{folder} was killed; the same command goes on with it") for folder in killed]

    def begin_again(self) -> bool:
        """Never: what another command's jobs train has a place in the queue already."""
        return False

    def run(self, config: DictConfig) -> object:
        """Run the job, within Slurm; the process ends as one of a single run does, so that Slurm knows how it went."""
        _take_own_cores(config)
        from submitit.core.utils import UncompletedJobError

        try:
            value = super().run(config)
        except Interrupted as interrupted:
            sys.exit(_tell(interrupted.told, interrupted.exit_code))
        except UncompletedJobError as error:  # it has saved, and has been in the queue as often as it may
            sys.exit(_tell(str(error), exit_codes.FAILED))
        if self.failures:
            sys.exit(self.failures[0].exit_code)
        return value

    def __getstate__(self) -> dict[str, Any]:
        """Of a sweep of thousands each job is written to a file of its own, which need not hold all the others."""
        lists = ("planned", "unfinished", "seconds", "left", "failures", "folders")
        return {**self.__dict__, **{name: [] for name in lists}}


class _Detaching(Interruption):
    """Stops waiting at once: what is stopped on a login node is whoever waits there, not the jobs."""

    def __init__(self, jobs: Callable[[], Sequence[str]]) -> None:
        super().__init__()
        self._jobs = jobs

    def _note(self, number: int, frame: FrameType | None) -> None:
        raise DetachedError(Signals(number), self._jobs())


def _take_own_cores(config: DictConfig) -> None:
    """Before torch is imported, which takes all cores of the node where Slurm does not bind the job to its own."""
    count = processes(config) or int(os.environ.get("SLURM_GPUS_ON_NODE", 1))
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", 1)) // count
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))


def _tell(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
