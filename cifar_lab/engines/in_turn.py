"""The jobs of a command line, one after the other in this process."""

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
    """The jobs of a checked command line, which `task` trains; other engines hand them to other processes."""

    looks_again = True  # whether the jobs of `left` are tried again at the end

    def __init__(self, task: Task, plan: Plan, effort: Effort | None = None) -> None:
        self.task = task
        self.plan = plan
        self.sweep = None if plan.sweep_folder is None else Sweep(plan.sweep_folder)
        self.known = {} if self.sweep is None else self.sweep.runs_by_job()
        # Where the plan of an earlier command says that runs are, other than in the sweep's own folder.
        self.before = {} if self.sweep is None else _elsewhere(self.sweep)
        settled = {key for key, run in self.known.items() if self.is_settled(run)}
        due = [job_key(job.words) not in settled for job in plan.jobs]
        efforts = efforts_of(plan, effort) if effort is not None and sum(due) > 1 else [1.0] * len(due)
        self.unfinished = [is_due * each for is_due, each in zip(due, efforts, strict=True)]
        self.parallel = plan.parallel
        self.seconds: list[float] = []  # of the jobs that were trained
        self.efforts: list[float] = []  # theirs
        self.folders: dict[int, Path] = {}  # of the runs, in the order of the jobs
        self.is_recorded = True  # whether `sweep.json` names each that is not where its command line says
        self.left: list[int] = []  # the jobs that another process was training when their turn came
        self.failures: list[RunFailedError] = []  # the jobs that have not finished

    def is_settled(self, run: Run) -> bool:
        """Whether nothing is left to do for a job whose command line has left this run."""
        return run.has_result() and not self.plan.composition["retrain"]

    def run_all(self) -> None:
        """Run all jobs, within `composing`. Jobs that other processes train are tried again while any is done or free.

        If several processes run the same jobs, the last one to finish thus finds every result.

        Raises:
            RunFailedError: A job has not finished.
            KeyboardInterrupt: A signal was received.
            ValueError: The launcher has refused the jobs.
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
            with suppress(OSError):  # report the error that ended the jobs
                self.record()
        getattr(callbacks, f"on_{kind}_end")(config=first, config_name="train")
        self.check()

    def record(self) -> None:
        """Record the run of each job, which need not be the run with the job's own words."""
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
        elif not self.is_recorded:  # once for all runs found, because training may take long
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
        """Hydra's launcher, which hands these jobs to other processes."""
        config, task = self.plan.compose(self.plan.jobs[0]), self.handed(numbers)
        return Plugins.instance().instantiate_launcher(hydra_context=self.context, task_function=task, config=config)

    def handed(self, numbers: Sequence[int]) -> Handed:
        """The task as another process gets it."""
        assert self.plan.common is not None
        return Handed(
            self.task, self.plan.common, numbers, array("f", self.unfinished), self.parallel, self.plan.former
        )

    def words(self, numbers: Sequence[int]) -> list[list[str]]:
        """The command lines that a launcher composes, besides Hydra's settings."""
        return [[*self.plan.jobs[number].words, *self.plan.named] for number in numbers]

    def look(self) -> None:
        """Read the outcome of jobs in other processes from the runs' folders."""
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
        """The run of a job that has left none with its words."""
        assert self.sweep is not None
        return run_of(plain(self.plan.composed(job)), (self.sweep.folder, *self.plan.former))

    def check(self) -> None:
        """Raise `RunFailedError` if something has not finished."""
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
