"""A job and its place in a sweep, as passed to the function that trains it in this or another process."""

import errno
import os
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lab.config import interpolations, resolved
from cifar_lab.machine import exit_codes
from cifar_lab.runs import LockedError
from cifar_lab.terminal.process import printing, show_nothing

FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a full disk


class RunFailedError(Exception):
    """A run ended without a result. Reported in one line; exit code 2 if the command line is at fault."""

    def __init__(self, message: str, exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def writing(again: str = "run the same command again", key: str = "hydra.run.dir") -> Iterator[None]:
    """Turn an `OSError` into a message with a remedy: `again` for a full disk, else a different folder by `key`.

    Raises:
        RunFailedError: An `OSError` about a file or a full disk was raised.
    """
    try:
        yield
    except OSError as error:
        is_full = error.errno in FULL
        if error.filename is None and not is_full:
            raise
        file = "a file" if error.filename is None else os.path.relpath(error.filename)
        way, code = f"free some space, then {again}", exit_codes.FAILED
        if not is_full:
            way, code = f"set {key}= to a writable folder", exit_codes.USAGE
        raise RunFailedError(f"cannot write {file}: {error.strerror}; {way}", code) from None


def end(message: str, code: int) -> NoReturn:
    """End the process with one line and an exit code."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


@dataclass(frozen=True)
class Turn:
    """The place of a job in its sweep."""

    number: int  # of the job, from 1
    total: int  # jobs of the sweep
    later: int  # jobs after it that have not finished yet
    each: float | None = None  # seconds per effort of the jobs trained so far; None before the first
    parallel: int = 1  # number of jobs that run in parallel
    effort: float = 1.0  # duration relative to the sweep's first job
    later_effort: float = 1.0  # mean effort of the later jobs

    @classmethod
    def of(cls, number: int, unfinished: Sequence[float], each: float | None = None, parallel: int = 1) -> "Turn":
        """Return the turn of job `number`, from 0; `unfinished` has the effort of each unfinished job, else 0."""
        later = [effort for effort in unfinished[number + 1 :] if effort]
        mean = sum(later) / len(later) if later else 1.0
        return cls(number + 1, len(unfinished), len(later), each, parallel, unfinished[number] or 1.0, mean)

    def __str__(self) -> str:
        return f"job {self.number} of {self.total}"

    def seconds_left(self, own: float | None = None, own_left: float | None = None) -> float | None:
        """Forecast the seconds for this job and the later ones, from the mean time per effort of the earlier jobs.

        `own` is the duration of this job, used if there are no earlier jobs. `own_left` is the rest of it; None means
        all of it. Returns None if nothing is known yet.
        """
        each = self.each if self.each is not None else None if own is None else own / self.effort
        if each is None:
            return None
        later = each * self.later_effort * -(-self.later // self.parallel)
        return (each * self.effort if own_left is None else own_left) + later


@dataclass(frozen=True)
class Job:
    """A job in plain values."""

    folder: Path  # of its run
    words: list[str]  # its overrides
    settings: dict[str, Any]  # the resolved configuration
    options: dict[str, str | None]  # the chosen option of each group
    follows: dict[str, str]  # interpolations of the values that follow others, by dotted key
    common: frozenset[str] | None = None  # the keys that all jobs of its sweep share; None for a single run
    turn: Turn | None = None  # place in its sweep; None for a single run
    former: tuple[Path, ...] = ()  # further folders that may hold finished runs of its sweep


# Trains a job and returns whether there was anything to train. Raises `RunFailedError` with a message for the user, and
# `LockedError` if another process is training the job.
Task = Callable[[Job], bool]


def job_of(config: DictConfig, common: frozenset[str] | None, turn: Turn | None, former: tuple[Path, ...] = ()) -> Job:
    """Return the job of a composed configuration with the `hydra` node."""
    hydra = config.hydra
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    follows = interpolations(own)
    own.name = str(config.name)
    for key in ("root", "path"):
        if hydra.job.get("chdir") and own.data.get(key):  # relative to the folder of the command
            own.data[key] = str(Path(hydra.runtime.cwd, own.data[key]))
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    typed = (word.partition("=") for word in hydra.overrides.task)
    lists = {key: value for key, _, value in typed if value.startswith("[") and OmegaConf.is_dict(own.get(key))}
    return Job(
        Path(hydra.runtime.output_dir),
        list(hydra.overrides.task),
        resolved(own),
        {**choices, **lists},  # Hydra omits groups with several chosen options
        follows,
        common,
        turn,
        former,
    )


# Set in a worker process once a signal has stopped a job, so that its remaining jobs are not started.
stopped = threading.Event()


@dataclass
class Handed:
    """The task of a process that Hydra's launcher starts. Its outcome is read from the run's folder.

    It is pickled for each job of a sweep, possibly thousands of times, so it has to be small.
    """

    task: Task
    common: frozenset[str]  # the keys that all jobs of the sweep share
    numbers: Sequence[int]  # the launched jobs, from 0, in the launcher's order
    unfinished: "array[float]"  # the effort of each unfinished job of the sweep, 0 for the others
    parallel: int  # number of jobs that run in parallel
    former: tuple[Path, ...] = ()  # as in `Job`

    @printing()
    def __call__(self, config: DictConfig) -> None:
        """Train the configuration that a launcher passes. It lacks the `hydra` node, which is in `HydraConfig`."""
        if stopped.is_set():
            return
        show_nothing()
        with open_dict(config):
            config.hydra = HydraConfig.get()
        number = self.numbers[config.hydra.job.num]
        turn = Turn.of(number, self.unfinished, parallel=self.parallel)
        from cifar_lab.engines.known import in_its_folder

        try:
            self.task(in_its_folder(job_of(config, self.common, turn, self.former)))
        except LockedError as owner:
            print(f"{Path(config.hydra.runtime.output_dir).name} is being trained by {owner}", flush=True)
        except RunFailedError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            self.failed(error)
        except KeyboardInterrupt:
            if self.parallel == 1:
                raise
            stopped.set()  # the waiting process has received the signal too

    def failed(self, error: RunFailedError) -> None:
        """Do nothing, because the run's folder records the failure."""
