"""Run the jobs of a command line, with one-line errors and exit codes."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra

from cifar_lab.config import Plan, completion, schema
from cifar_lab.config.command_line import CommandLine, composing, in_one_line
from cifar_lab.config.launchers import JOBLIB, RAY, SLURM, Launcher
from cifar_lab.engines.efforts import Effort
from cifar_lab.engines.handover import RunFailedError, Task, end, writing
from cifar_lab.engines.in_turn import Jobs
from cifar_lab.engines.ray_jobs import RayJobs
from cifar_lab.engines.side_by_side import SideBySide
from cifar_lab.engines.slurm_jobs import SlurmJobs
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.terminal.faults import report_fault
from cifar_lab.terminal.process import printing, show_nothing

_ENGINES: dict[Launcher | None, type[Jobs]] = {JOBLIB: SideBySide, RAY: RayJobs, SLURM: SlurmJobs}


@printing()
def run_application(application: Callable[[], object]) -> NoReturn:
    """Run `application` as the process's command; print errors in one line, and exit with a code.

    Args:
        application: Raises `UsageError` for a wrong command line, and the errors of `run_jobs`.

    Raises:
        SystemExit: Always. 0: done; 1: a run failed, or a bug, with its traceback; 2: the command line cannot be run;
            130: interrupted by Ctrl-C; 143: by another signal.
    """
    show_nothing()
    try:
        application()
    except RunFailedError as error:
        end(str(error), error.exit_code)
    except exit_codes.UsageError as error:
        end(str(error), exit_codes.USAGE)
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):
            end(error.message, error.exit_code)
        end("interrupted", exit_codes.interrupted(signal.SIGINT))
    except Exception:
        sys.exit(report_fault())
    sys.exit(0)


def run_jobs(task: Task, plan: Plan, effort: Effort | None = None) -> list[Path]:
    """Run `task` for a run, or for each job of a sweep, and return the folders of the runs.

    Args:
        task: Trains a job.
        plan: The jobs.
        effort: Relative duration of a composition, for forecasts. Default: all are equal.

    Raises:
        ValueError: The jobs cannot be run.
        RunFailedError: A run failed, or its folder cannot be written. In a sweep, raised after the other runs.
        KeyboardInterrupt: A run was interrupted.
    """
    with writing(key="hydra.run.dir" if plan.sweep_folder is None else "hydra.sweep.dir"):
        jobs = _ENGINES.get(plan.launcher, Jobs)(task, plan, effort)
        jobs.record()
        with composing(), _process_as_before():
            jobs.run_all()
    return list(jobs.folders.values())


def show(line: CommandLine) -> None:
    """Run a command line that trains nothing: help, a configuration, completions.

    Raises:
        ValueError: The command line cannot be composed.
    """

    def hydras() -> None:
        conf = str(schema.conf_folder())
        version.setbase("1.3")  # as `hydra.main` does
        _run_hydra(line.flags, line.parser, lambda config: None, config_path=conf, config_name="train")

    with in_one_line(), _process_as_before():
        os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors, so that we print them
        if line.flags.shell_completion:
            completion.answer(hydras)
        else:
            hydras()


@contextmanager
def _process_as_before() -> Iterator[None]:
    """Restore logging, warnings and Hydra's environment variable, because the caller may use them too."""
    root, variable = logging.getLogger(), "HYDRA_FULL_ERROR"
    handlers, level, value = list(root.handlers), root.level, os.environ.get(variable)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        os.environ.pop(variable, None)
        os.environ |= {} if value is None else {variable: value}
