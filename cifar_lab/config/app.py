"""The Hydra application around a task: one line for each error, and an exit code that says what it was."""

import functools
import logging
import math
import os
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

from cifar_lab.config import completion, schema
from cifar_lab.config.preflight import Preflight
from cifar_lab.interruption import Interrupted
from cifar_lab.jobs import Job
from cifar_lab.runs import Sweep, job_key

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class RunFailedError(Exception):
    """A run that ended without a result, told in one line.

    Args:
        message: The line.
        exit_code: 1 where the run failed, 2 where what it was asked for cannot be.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
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
        _exit(str(error), EXIT_USAGE)
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):
            _exit(f"interrupted by {error}; {error.goes_on} goes on where it stopped", error.exit_code)
        _exit("interrupted", EXIT_INTERRUPTED)
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
    finished = set() if sweep is None else sweep.finished_jobs()
    unfinished = [job_key(lines) not in finished for lines in asked.jobs]
    seconds: list[float] = []
    left: list[Path] = []
    again: frozenset[Path] | None = None
    failures: list[RunFailedError] = []
    folders: list[Path] = []

    @functools.wraps(task)
    def job(config: DictConfig) -> object:
        own = HydraConfig.get()
        folders.append(Path(own.runtime.output_dir))
        try:
            if sweep is None:
                return task(config, None)
            number = own.job.num + 1
            return task(config, Job(number, len(asked.jobs), sum(unfinished[number:]), seconds, left, again))
        except RunFailedError as error:
            # Kept from Hydra, which would announce it by lines of its own.
            if sweep is not None:
                print(f"error: {error}", file=sys.stderr, flush=True)
            failures.append(error)
            return math.nan

    application = hydra.main(config_path=str(schema.conf_folder()), config_name="train", version_base="1.3")(job)
    try:
        if sweep is not None:
            sweep.plan(asked.jobs)
        with _command_line([*asked.ordered, *asked.additions]):
            if asked.completes:
                completion.answer(application)
            else:
                application()
                if left:  # what another process trained when its turn came is looked at once more
                    again, left = frozenset(left), []
                    application()
    except (HydraException, OmegaConfBaseException) as error:
        parts = [str(error), str(error.__cause__ or "")]
        raise ValueError(" ".join(" ".join(parts).split())) from None
    except OSError as error:
        if error.filename is None:  # not about a file, and so not about the run's folder
            raise
        line = f"cannot write {error.filename}: {error.strerror}; set hydra.run.dir= to a writable folder"
        raise ValueError(line) from None
    if failures and sweep is not None:
        raise RunFailedError(f"not every run of the sweep finished; the first that did not: {failures[0]}")
    if failures:
        raise failures[0]
    if left:
        raise RunFailedError(f"{len(left)} runs of the sweep are still being trained elsewhere, the first is {left[0]}")
    return folders


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
