"""The jobs of a command line, as Hydra hands them over, and what became of them."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cifar_lab.config.preflight import Preflight
from cifar_lab.engines import side_by_side
from cifar_lab.engines.jobs import Job
from cifar_lab.machine import exit_codes
from cifar_lab.runs import Run, Sweep, job_key


class RunFailedError(Exception):
    """A run that ended without a result, told in one line.

    Args:
        message: The line.
        exit_code: 1 where the run failed, 2 where what it was asked for cannot be.
    """

    def __init__(self, message: str, exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


Task = Callable[[DictConfig, Job | None], object]


class Jobs:
    """The jobs of a command line, which Hydra hands over one by one.

    Args:
        task: What to call with each.
        asked: The checked command line.
        sweep: Whose jobs they are; None for a single run.
    """

    def __init__(self, task: Task, asked: Preflight, sweep: Sweep | None) -> None:
        self.task = task
        self.sweep = sweep
        self.planned = asked.jobs
        self.beside = asked.beside
        runs = {} if sweep is None else sweep.runs_by_job()
        settled = {key for key, run in runs.items() if self._is_settled(run)}
        self.unfinished = [job_key(lines) not in settled for lines in asked.jobs]
        self.total = len(asked.jobs)
        self.seconds: list[float] = []
        self.left: list[Path] = []
        self.again: frozenset[Path] | None = None
        self.failures: list[RunFailedError] = []
        self.folders: list[Path] = []

    def _is_settled(self, run: Run) -> bool:
        """Whether nothing is left of a job whose command line has left a run."""
        return run.has_result()

    def run_all(self, application: Callable[[], object]) -> None:
        """Let Hydra hand over the jobs; of processes side by side, then look at what they have left.

        Raises:
            RunFailedError: A process was killed.
            KeyboardInterrupt: A signal was received.
        """
        if self.beside == 1:
            application()
            return
        try:
            with side_by_side.supervised():
                application()
        except side_by_side.WorkerLostError:
            raise RunFailedError("a process was killed; the same command goes on with what is unfinished") from None
        self._look()

    def _look(self) -> None:
        """Take from the runs' folders what jobs in this process would have told."""
        assert self.sweep is not None
        runs = self.sweep.runs_by_job()
        self.folders, self.failures, self.left = [], [], []
        for lines in self.planned:
            if job_key(lines) not in runs:
                self.failures.append(RunFailedError(f"{' '.join(lines)} has left no run"))
                continue
            run = runs[job_key(lines)]
            folder, state = Path(os.path.abspath(run.folder)), run.state()
            self.folders.append(folder)
            if state in ("running", "dead"):
                self.left.append(folder)
            elif not run.has_result():
                how = "was interrupted by" if state == "interrupted" else f"has {state}:"
                self.failures.append(RunFailedError(f"{folder} {how} {run.status().get('error', '')}"))

    def run(self, config: DictConfig) -> object:
        """Run a job; NaN where it fails, as an exception would be announced by Hydra, in lines of its own."""
        if side_by_side.stopped.is_set():
            return math.nan
        own = HydraConfig.get()
        self.folders.append(Path(own.runtime.output_dir))
        try:
            return self.task(config, None if self.sweep is None else self._job(own.job.num))
        except RunFailedError as error:
            if self.sweep is not None:
                print(f"error: {error}", file=sys.stderr, flush=True)
            self.failures.append(error)
            return math.nan
        except KeyboardInterrupt:
            if self.beside == 1:
                raise
            side_by_side.stopped.set()  # the process that waits for this one has got the signal too
            return math.nan

    def _job(self, index: int) -> Job:
        later = sum(self.unfinished[index + 1 :])
        return Job(index + 1, self.total, later, self.seconds, self.left, self.again, self.beside)

    def begin_again(self) -> bool:
        """Turn to what another process was training when its turn came; whether there is any."""
        self.again, self.left = frozenset(self.left), []
        return bool(self.again)

    def check(self) -> None:
        """Tell what has not finished.

        Raises:
            RunFailedError: Something has not.
        """
        if self.failures and self.sweep is not None:
            raise RunFailedError(f"not every run of the sweep finished; the first that did not: {self.failures[0]}")
        if self.failures:
            raise self.failures[0]
        if self.left:
            elsewhere = f"{len(self.left)} runs of the sweep are still being trained elsewhere"
            raise RunFailedError(f"{elsewhere}, the first is {self.left[0]}")
