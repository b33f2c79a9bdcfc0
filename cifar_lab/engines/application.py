"""The Hydra application around a task: one line for each error, and an exit code that says what it was."""

import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.config import completion, schema
from cifar_lab.config.command_line import own_hydra
from cifar_lab.config.launchers import RAY, SLURM, Launcher
from cifar_lab.config.preflight import Preflight
from cifar_lab.engines.handover import Jobs, RunFailedError, Task
from cifar_lab.engines.ray_jobs import RayJobs
from cifar_lab.engines.slurm_jobs import SlurmJobs
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.runs import Sweep

# How the jobs of a sweep are looked after, where it is not by the processes of this machine alone.
_JOBS: dict[Launcher | None, type[Jobs]] = {RAY: RayJobs, SLURM: SlurmJobs}


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
            _exit(error.told, error.exit_code)
        _exit("interrupted", exit_codes.interrupted(signal.SIGINT))
    sys.exit(0)


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
    jobs = _JOBS.get(asked.launcher, Jobs)(task, asked, sweep)

    @functools.wraps(task)
    def job(config: DictConfig) -> object:
        return jobs.run(config)

    application = hydra.main(config_path=str(schema.conf_folder()), config_name="train", version_base="1.3")(job)
    try:
        if sweep is not None:
            sweep.plan(asked.jobs)
        with _command_line([*asked.ordered, *asked.additions]), _composing_once():
            if asked.completes:
                completion.answer(application)
            else:
                jobs.run_all(application)
                if jobs.begin_again():
                    jobs.run_all(application)
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
        with own_hydra(), warnings.catch_warnings():
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
def _composing_once() -> Iterator[None]:
    """Let Hydra compose each job of a sweep when its turn comes, and not all of them before the first begins, too.

    That takes an hour for ten thousand, and the preflight has looked at those that differ along one axis.
    """
    validate = HydraSweeper.validate_batch_is_legal
    HydraSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        HydraSweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]


def _exit(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
