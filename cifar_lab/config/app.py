"""The Hydra application around a task: one line for each error, and an exit code that says what it was."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.config import completion, schema
from cifar_lab.config.preflight import Preflight

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


def run_application(task: Callable[[DictConfig], object], arguments: Sequence[str] | None = None) -> NoReturn:
    """Compose what the command line says, hand it to `task`, once or for each job of a sweep, and exit.

    Args:
        task: Called with the composed configuration; raises `RunFailedError` for what the user should read.
        arguments: The command line without the program's name; None takes the process's.

    Raises:
        SystemExit: Always; 0 done, 1 a run failed, 2 the command line cannot be run, 130 interrupted.
    """
    preflight = _checked([_expanded(argument) for argument in (sys.argv[1:] if arguments is None else arguments)])
    for note in preflight.notes:
        print(f"note: {note}", flush=True)
    sys.argv[1:] = [*preflight.ordered, *preflight.additions]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves the wording of errors to us

    @functools.wraps(task)
    def job(config: DictConfig) -> object:
        try:
            return task(config)
        except RunFailedError as error:
            # Hydra would announce a failed job by lines of its own; a sweep needs it to go on with the others.
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                _exit(str(error), error.exit_code)
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise

    application = hydra.main(config_path=str(schema.conf_folder()), config_name="train", version_base="1.3")(job)
    try:
        if preflight.completes:
            completion.answer(application)
        else:
            application()
    except RunFailedError as error:
        _exit(f"not every run of the sweep finished; the first that did not: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    except (HydraException, OmegaConfBaseException) as error:
        parts = [str(error), str(error.__cause__ or "")]
        _exit(" ".join(" ".join(parts).split()), EXIT_USAGE)
    except OSError as error:
        if error.filename is None:  # not about a file, and so not about the run's folder
            raise
        _exit(f"cannot write {error.filename}: {error.strerror}; set hydra.run.dir= to a writable folder", EXIT_USAGE)
    sys.exit(0)


def _checked(arguments: list[str]) -> Preflight:
    try:
        preflight = Preflight(arguments)
        if preflight.trains:
            preflight.check()
    except Exception as error:  # Hydra raises nearly anything at what it did not foresee
        _exit(" ".join(str(error).split()) or type(error).__name__, EXIT_USAGE)
    return preflight


def _expanded(argument: str) -> str:
    """Put the home folder for the `~` of `data.root=~/data`, which shells leave alone and Hydra refuses."""
    key, separator, value = argument.partition("=")
    return f"{key}={Path(value).expanduser()}" if separator and value.startswith("~/") else argument


def _exit(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
