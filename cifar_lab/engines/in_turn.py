"""Run the jobs of a command line in this process, one after the other."""

import os
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from cifar_lab.config import Plan
from cifar_lab.config.command_line import PlannedJob
from cifar_lab.config.naming import plain
from cifar_lab.engines.efforts import Effort, efforts_of
from cifar_lab.engines.handover import Handed, RunFailedError, Task, Turn, job_of
from cifar_lab.engines.known import in_its_folder, run_of
from cifar_lab.machine import exit_codes
from cifar_lab.runs import LockedError, Run, Sweep, job_key


class Jobs:
    """The jobs of a checked command line, which `task` trains. Subclasses hand them to other processes."""

    looks_again = True  # whether the jobs of `left` are retried at the end

    def __init__(self, task: Task, plan: Plan, effort: Effort | None = None) -> None:
        self.task = task
        self.plan = plan
        self.sweep = None if plan.sweep_folder is None else Sweep(plan.sweep_folder)
        self.known = {} if self.sweep is None else self.sweep.runs_by_job()
        # Runs outside the sweep's folder, as recorded by an earlier command.
        self.before = {} if self.sweep is None else _elsewhere(self.sweep)
        settled = {key for key, run in self.known.items() if self.is_settled(run)}
        due = [job_key(job.words) not in settled for job in plan.jobs]
        efforts = efforts_of(plan, effort) if effort is not None and sum(due) > 1 else [1.0] * len(due)
        self.unfinished = [is_due * each for is_due, each in zip(due, efforts, strict=True)]
        self.parallel = plan.parallel
        self.seconds: list[float] = []  # durations of the trained jobs
        self.efforts: list[float] = []  # efforts of the trained jobs
        self.folders: dict[int, Path] = {}  # folders of the runs, by job number
        self.is_recorded = True  # whether `sweep.json` names every run outside the folder of its command line
        self.left: list[int] = []  # jobs that another process was training at their turn
        self.failures: list[RunFailedError] = []  # one for each unfinished job

    def is_settled(self, run: Run) -> bool:
        """Return whether there is nothing left to do for the job of this run."""
        return run.has_result() and not self.plan.composition["retrain"]

    def run_all(self) -> None:
        """Run all jobs, within `composing`.

        Jobs that other processes train are retried for as long as one of them can be run or has finished. If several
        processes run the same jobs, the last one to end thus finds every result.

        Raises:
            RunFailedError: A job has not finished.
            KeyboardInterrupt: A signal was received.
            ValueError: The launcher refused the jobs.
        """
        first = self.plan.composed(self.plan.jobs[0])
        callbacks = Callbacks(first)
        self.context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
        kind = "run" if self.sweep is None else "multirun"
        getattr(callbacks, f"on_{kind}_start")(config=first, config_name="train")
        try:
            self.run(range(len(self.plan.jobs)))
            again: list[int] = []
            while self.looks_again and self.left != again:
                again, self.left = self.left, []
                self.run(again)
        finally:
            with suppress(OSError):  # do not hide the error that ended the jobs
                self.record()
        getattr(callbacks, f"on_{kind}_end")(config=first, config_name="train")
        self.check()

    def record(self) -> None:
        """Record each job's run in `sweep.json`, because a run may have been trained by other words."""
        if self.sweep is not None:
            jobs = [job.words for job in self.plan.jobs]
            folders = [self.folders.get(number, self.before.get(job_key(words))) for number, words in enumerate(jobs)]
            self.sweep.plan(jobs, folders)
            self.is_recorded = True

    def run(self, numbers: Sequence[int]) -> None:
        """Run some of the jobs."""
        for number in numbers:
            config = self.plan.composed(self.plan.jobs[number])
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.job.num = number
            each = sum(self.seconds) / sum(self.efforts) if self.efforts else None
            turn = None if self.sweep is None else Turn.of(number, self.unfinished, each, self.parallel)
            returned = run_job(
                task_function=lambda _, config=config, turn=turn: self._train(config, turn),  # type: ignore[misc]
                config=config,
                job_dir_key="hydra.run.dir" if self.sweep is None else "hydra.sweep.dir",
                job_subdir_key=None if self.sweep is None else "hydra.sweep.subdir",
                hydra_context=self.context,
            )
            returned.return_value  # noqa: B018 - raises the job's exception

    def _train(self, config: DictConfig, turn: Turn | None) -> None:
        typed = job_of(config, self.plan.common, turn, self.plan.former)
        same_words = self.known.get(job_key(typed.words))
        job = in_its_folder(typed, [] if same_words is None else [same_words])
        number, started = config.hydra.job.num, time.perf_counter()
        self.folders[number] = job.folder
        if job.folder != typed.folder:
            self.is_recorded = False
        elif not self.is_recorded:  # once for all known runs, before a training that may take long
            self.record()
        try:
            if self.task(job):
                self.seconds.append(time.perf_counter() - started)
                self.efforts.append(1.0 if turn is None else turn.effort)
        except LockedError as owner:
            if turn is None:
                line = f"{job.folder} is being trained by {owner}; set hydra.run.dir= to a different"
                self.failures.append(RunFailedError(line, exit_codes.USAGE))
            else:
                print(f"{job.folder.name} is being trained by {owner}", flush=True)
                self.left.append(number)
        except RunFailedError as error:
            if turn is not None:
                print(f"error: {error}", file=sys.stderr, flush=True)
            self.failures.append(error)

    def launcher(self, numbers: Sequence[int]) -> Any:
        """Return Hydra's launcher, which hands these jobs to other processes."""
        config, task = self.plan.compose(self.plan.jobs[0]), self.handed(numbers)
        return Plugins.instance().instantiate_launcher(hydra_context=self.context, task_function=task, config=config)

    def handed(self, numbers: Sequence[int]) -> Handed:
        """Return the task for another process."""
        assert self.plan.common is not None
        return Handed(
            self.task, self.plan.common, numbers, array("f", self.unfinished), self.parallel, self.plan.former
        )

    def words(self, numbers: Sequence[int]) -> list[list[str]]:
        """Return the overrides of the jobs for a launcher, without Hydra's settings."""
        return [[*self.plan.jobs[number].words, *self.plan.named] for number in numbers]

    def look(self) -> None:
        """Read the outcome of jobs of other processes from the runs' folders."""
        assert self.sweep is not None
        runs = self.sweep.runs_by_job()
        self.folders, self.failures, self.left = {}, [], []
        for number, job in enumerate(self.plan.jobs):
            run = runs.get(job_key(job.words)) or self.existing(job)
            if run is None:
                self.failures.append(RunFailedError(f"{' '.join(job.words)} has left no run"))
                continue
            folder, state = Path(os.path.abspath(run.folder)), run.state()
            self.folders[number] = folder
            if state in ("running", "dead"):
                self.left.append(number)
            elif not run.has_result():
                how = "was interrupted by" if state == "interrupted" else f"has {state}:"
                self.failures.append(RunFailedError(f"{folder} {how} {run.status().get('error', '')}"))

    def existing(self, job: PlannedJob) -> Run | None:
        """Return the run of a job for which no run has its words."""
        assert self.sweep is not None
        return run_of(plain(self.plan.composed(job)), (self.sweep.folder, *self.plan.former))

    def check(self) -> None:
        """Raise `RunFailedError` if a job has not finished."""
        if self.failures and self.sweep is not None:
            line = f"not every run of the sweep finished; the first that did not: {self.failures[0]}"
            raise RunFailedError(line, min(failure.exit_code for failure in self.failures))
        if self.failures:
            raise self.failures[0]
        if self.left:
            number, first = len(self.left), self.folders[self.left[0]]
            raise RunFailedError(f"{number} runs of the sweep are still being trained elsewhere, the first is {first}")


def _elsewhere(sweep: Sweep) -> dict[frozenset[str], Path]:
    return {job_key(words): run.folder for words, run in sweep.jobs() if run and run.folder.parent != sweep.folder}
