"""The Hydra application around a task: one line for each error, and an exit code that says what it was."""

import functools
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar_lab import exit_codes
from cifar_lab.config import completion, schema
from cifar_lab.config.preflight import Preflight
from cifar_lab.interruption import Interrupted
from cifar_lab.jobs import Job
from cifar_lab.runs import Sweep, job_key


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


def run_application(application: Callable[[], object]) -> NoReturn:
    """Call `application` as the process's command: one line for each error, and an exit code.

    Args:
        application: Raises as `checked` and `run_jobs` do.

    Raises:
        SystemExit: Always; 0 done, 1 a run failed, 2 the command line cannot be run, 130 interrupted by Ctrl-C, 143 by
            another signal.
    """
    try:
        application()
    except RunFailedError as error:
        _exit(str(error), error.exit_code)
    except ValueError as error:
        _exit(str(error), exit_codes.USAGE)
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):
            _exit(f"interrupted by {error}; {error.goes_on} goes on where it stopped", error.exit_code)
        _exit("interrupted", exit_codes.interrupted(signal.SIGINT))
    sys.exit(0)


def checked(arguments: Sequence[str]) -> Preflight:
    """Check a command line, and print what is allowed but worth a word.

    Args:
        arguments: Without the program's name.

    Raises:
        ValueError: It cannot be run, in one line.
    """
    try:
        with _own_hydra():
            preflight = Preflight([_expanded(argument) for argument in arguments])
            if preflight.trains:
                preflight.check()
    except Exception as error:  # Hydra raises nearly anything at what it did not foresee
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    for note in preflight.notes:
        print(f"note: {note}", flush=True)
    return preflight


def run_jobs(task: Task, asked: Preflight) -> list[Path]:
    """Hand what a command line composes to `task`, once or for each job of a sweep.

    Args:
        task: Called with the composed configuration and which job of a sweep it is, None for a single run; raises
            `RunFailedError` for what the user should read.
        asked: The checked command line.

    Returns:
        The folders of the runs that this process made.

    Raises:
        ValueError: It cannot be run, in one line.
        RunFailedError: A run failed; in a sweep, after the others have run.
        KeyboardInterrupt: A run was interrupted.
    """
    sweep = None if asked.sweep_folder is None else Sweep(asked.sweep_folder)
    jobs = _Jobs(task, asked, sweep)

    @functools.wraps(task)
    def job(config: DictConfig) -> object:
        return jobs.run(config)

    application = hydra.main(config_path=str(schema.conf_folder()), config_name="train", version_base="1.3")(job)
    try:
        if sweep is not None:
            sweep.plan(asked.jobs)
        with _command_line([*asked.ordered, *asked.additions]):
            if asked.completes:
                completion.answer(application)
            else:
                application()
                if jobs.begin_again():
                    application()
    except (HydraException, OmegaConfBaseException) as error:
        parts = [str(error), str(error.__cause__ or "")]
        raise ValueError(" ".join(" ".join(parts).split())) from None
    except OSError as error:
        if error.filename is None:  # not about a file, and so not about the run's folder
            raise
        line = f"cannot write {error.filename}: {error.strerror}; set hydra.run.dir= to a writable folder"
        raise ValueError(line) from None
    jobs.check()
    return jobs.folders


class _Jobs:
    """The jobs of a command line, which Hydra hands over one by one.

    Args:
        task: What to call with each.
        asked: The checked command line.
        sweep: Whose jobs they are; None for a single run.
    """

    def __init__(self, task: Task, asked: Preflight, sweep: Sweep | None) -> None:
        self.task = task
        self.sweep = sweep
        runs = {} if sweep is None else sweep.runs_by_job()
        finished = {key for key, run in runs.items() if run.has_result()}
        self.unfinished = [job_key(lines) not in finished for lines in asked.jobs]
        self.seconds: list[float] = []
        self.left: list[Path] = []
        self.again: frozenset[Path] | None = None
        self.failures: list[RunFailedError] = []
        self.folders: list[Path] = []

    def run(self, config: DictConfig) -> object:
        """Run a job; NaN where it fails, as an exception would be announced by Hydra, in lines of its own."""
        own = HydraConfig.get()
        self.folders.append(Path(own.runtime.output_dir))
        try:
            return self.task(config, None if self.sweep is None else self._job(own.job.num))
        except RunFailedError as error:
            if self.sweep is not None:
                print(f"error: {error}", file=sys.stderr, flush=True)
            self.failures.append(error)
            return math.nan

    def _job(self, index: int) -> Job:
        later = sum(self.unfinished[index + 1 :])
        return Job(index + 1, len(self.unfinished), later, self.seconds, self.left, self.again)

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


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Show Hydra `arguments` as the process's, and make it leave the wording of errors to us.

    What Hydra changes in the process is as before at the end: a caller may use Hydra and logging too.
    """
    given, environment, root = sys.argv[1:], os.environ.get("HYDRA_FULL_ERROR"), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with _own_hydra(), warnings.catch_warnings():
            yield
    finally:
        sys.argv[1:] = given
        root.handlers[:] = handlers
        root.setLevel(level)
        if environment is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = environment


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Let Hydra begin anew, and give back what a caller has begun with it."""
    callers = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = callers


def _expanded(argument: str) -> str:
    """Put the home folder for the `~` of `data.root=~/data`, which shells leave alone and Hydra refuses."""
    key, separator, value = argument.partition("=")
    return f"{key}={Path(value).expanduser()}" if separator and value.startswith("~/") else argument


def _exit(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
