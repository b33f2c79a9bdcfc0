"""Points of a computation: kept one by one, so that a command resumes, with its progress."""

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cifar_lab.runs import UnreadableError, replacing
from cifar_lab.runs.reading import read_arrays
from cifar_lab.terminal.progress import clock, progress

Tick = Callable[[], None]


def digest(settings: Mapping[str, Any], *tensors: Mapping[str, Tensor]) -> str:
    """Tells a computation from others by its plain settings and every bit of the tensors that it begins with."""
    content = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for named in tensors:
        for name, value in named.items():
            content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def _kept(path: Path) -> dict[str, np.ndarray]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return read_arrays(path)
    except (FileNotFoundError, UnreadableError):  # a damaged file is computed again
        return {}


class Points:
    """The points of one computation, in one file that is whole after each of them.

    Args:
        folder: Where the file lies; made if it does not exist. None keeps them in memory alone.
        name: Of the computation; the file's name has it and the key.
        key: Of `digest`: another computation has another file.
        count: How many points.
    """

    def __init__(self, folder: Path | None, name: str, key: str, count: int) -> None:
        self.path = None if folder is None else folder / f"{name}-{key}.npz"
        self.count = count
        self._values = {} if self.path is None else _kept(self.path)
        if any(len(value) != count for value in self._values.values()):
            self._values = {}
        self._done = self._values.setdefault("done", np.zeros(count, dtype=bool))

    def pending(self) -> list[int]:
        """The points that are not there yet."""
        return np.flatnonzero(~self._done).tolist()

    def keep(self, index: int, values: Mapping[str, npt.ArrayLike]) -> None:
        """Add a point, with the same names and shapes as the others, and write all that there are."""
        for name, value in values.items():
            array = np.asarray(value, dtype=np.float64)
            self._values.setdefault(name, np.full((self.count, *array.shape), np.nan))[index] = array
        self._done[index] = True
        if self.path is not None:
            with replacing(self.path, "wb") as file:
                np.savez(file, **self._values)  # type: ignore[arg-type]

    def values(self) -> dict[str, np.ndarray]:
        """An array `(points, ...)` for each quantity; float64, and NaN at points that are not there yet."""
        return {name: value for name, value in self._values.items() if name != "done"}


@dataclass(frozen=True)
class Job:
    """Points of one kind to compute."""

    name: str  # their name in the progress line
    points: Points  # where they are kept
    # computes a point, a quantity by its name; it calls its second argument after each unit of work
    evaluate: Callable[[int, Tick], Mapping[str, npt.ArrayLike]]
    units: int  # about how many units of work a point is
    seconds: Callable[[], float]  # of one unit, measured


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """Measures, once and when called, how many seconds `work` takes the second time, after a first to warm up."""

    @cache
    def seconds() -> float:
        call()
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return seconds


def compute(title: str, jobs: Sequence[Job]) -> None:
    """Compute every missing point, after an estimate of the time it takes; shows progress on standard error."""
    pending = [(job, index) for job in jobs for index in job.points.pending()]
    if not pending:
        print(f"{title}: all of it is there", file=sys.stderr)
        return
    units = sum(job.units for job, _ in pending)
    total = sum(job.units * job.seconds() for job, _ in pending)
    there = sum(job.points.count for job in jobs) - len(pending)
    resumed = f", {there} more are there" if there else ""
    print(f"{title}: {len(pending)} points to compute{resumed}; about {clock(total)}", file=sys.stderr, flush=True)
    ended = 0
    with progress(title, units) as show:
        for job, index in pending:
            done = itertools.count(ended + 1)
            tick = partial(lambda name, done: show(name, min(next(done), units)), job.name, done)
            job.points.keep(index, job.evaluate(index, tick))
            ended += job.units  # a point may have taken more units of work than estimated, or fewer
            show(job.name, ended)
