"""A job as it is handed to what trains it, in this process or in another."""

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lab.config import interpolations, resolved
from cifar_lab.engines.jobs import Turn
from cifar_lab.machine import exit_codes
from cifar_lab.runs import LockedError


class RunFailedError(Exception):
    """A run that ended without a result, reported in one line.

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


@dataclass(frozen=True)
class Job:
    """A job as it is trained: plain values.

    Attributes:
        folder: Of its run.
        words: Its command line.
        settings: The resolved configuration.
        options: The chosen option of each group.
        follows: Which values follow others, by dotted key.
        common: The keys that all jobs of its sweep share; None for a run of its own.
        turn: Whose turn it is in its sweep; None for a run of its own.
    """

    folder: Path
    words: list[str]
    settings: dict[str, Any]
    options: dict[str, str | None]
    follows: dict[str, str]
    common: frozenset[str] | None = None
    turn: Turn | None = None


# Trains a job. Returns whether there was something to train; raises `RunFailedError` for what the user should read, and
# `LockedError` where another process trains it.
Task = Callable[[Job], bool]


def job_of(config: DictConfig, common: frozenset[str] | None, turn: Turn | None) -> Job:
    """The job that a composed configuration with Hydra's own part describes."""
    hydra = config.hydra
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    follows = interpolations(own)
    own.name = str(config.name)
    return Job(
        Path(hydra.runtime.output_dir),
        list(hydra.overrides.task),
        resolved(own),
        {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")},
        follows,
        common,
        turn,
    )


# Set in a process of jobs once a signal has stopped one of them: those that still wait for it are not begun.
stopped = threading.Event()


@dataclass
class Handed:
    """The task, for processes that Hydra's launcher starts; what they do is read from the runs' folders.

    It is pickled for each job of a sweep, which may have thousands.

    Attributes:
        task: Trains a job.
        common: The keys that all jobs of the sweep share.
        numbers: The jobs that are launched, from 0, in the launcher's order.
        unfinished: 1 for each job of the sweep that has not finished, else 0.
        beside: How many jobs run at a time.
    """

    task: Task
    common: frozenset[str]
    numbers: Sequence[int]
    unfinished: bytes
    beside: int

    def __call__(self, config: DictConfig) -> None:
        """Train what a launcher hands over: the composed job, of which Hydra keeps its own part elsewhere."""
        if stopped.is_set():
            return
        with open_dict(config):
            config.hydra = HydraConfig.get()
        number = self.numbers[config.hydra.job.num]
        turn = Turn.of(number, self.unfinished, beside=self.beside)
        try:
            self.task(job_of(config, self.common, turn))
        except LockedError as owner:
            print(f"{Path(config.hydra.runtime.output_dir).name} is being trained by {owner}", flush=True)
        except RunFailedError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            self.failed(error)
        except KeyboardInterrupt:
            if self.beside == 1:
                raise
            stopped.set()  # the process that waits for this one has got the signal too

    def failed(self, error: RunFailedError) -> None:
        """Nothing: the run's folder says so."""
