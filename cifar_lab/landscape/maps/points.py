"""Points of a computation, saved one by one so that a command can resume, and their progress."""

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
    """Hash a computation's plain settings and all bits of its input tensors, to 16 hexadecimal digits."""
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
    except (FileNotFoundError, UnreadableError):  # compute the points of a damaged file again
        return {}


class Points:
    """The points of one computation, in one file that is complete after each point.

    Args:
        folder: Folder of the file, created if missing. None keeps the points in memory only.
        name: Name of the computation, the first part of the file name.
        key: Digest of the computation, the second part of the file name.
        count: Number of points.
    """

    def __init__(self, folder: Path | None, name: str, key: str, count: int) -> None:
        self.path = None if folder is None else folder / f"{name}-{key}.npz"
        self.count = count
        self._values = {} if self.path is None else _kept(self.path)
        if any(len(value) != count for value in self._values.values()):
            self._values = {}
        self._done = self._values.setdefault("done", np.zeros(count, dtype=bool))

    def pending(self) -> list[int]:
        """Return the indices of the missing points."""
        return np.flatnonzero(~self._done).tolist()

    def keep(self, index: int, values: Mapping[str, npt.ArrayLike]) -> None:
        """Add a point, with the same names and shapes as the others, and write the file."""
        for name, value in values.items():
            array = np.asarray(value, dtype=np.float64)
            self._values.setdefault(name, np.full((self.count, *array.shape), np.nan))[index] = array
        self._done[index] = True
        if self.path is not None:
            with replacing(self.path, "wb") as file:
                np.savez(file, **self._values)  # type: ignore[arg-type]

    def values(self) -> dict[str, np.ndarray]:
        """Return an array `(points, ...)` per quantity, float64, NaN at missing points."""
        return {name: value for name, value in self._values.items() if name != "done"}


@dataclass(frozen=True)
class Job:
    """Points of one kind to compute."""

    name: str  # label of the progress
    points: Points  # destination of the results
    # computes a point's quantities by name, and calls its second argument after each unit of work
    evaluate: Callable[[int, Tick], Mapping[str, npt.ArrayLike]]
    units: int  # approximate units of work per point
    seconds: Callable[[], float]  # measured seconds per unit


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """Return a function that measures the seconds of `call` after one warm-up, on its first use only."""

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
    """Compute every missing point. Print an estimate of the time first, then progress, on standard error."""
    pending = [(job, index) for job in jobs for index in job.points.pending()]
    if not pending:
        print(f"{title}: all points are already computed", file=sys.stderr)
        return
    units = sum(job.units for job, _ in pending)
    total = sum(job.units * job.seconds() for job, _ in pending)
    there = sum(job.points.count for job in jobs) - len(pending)
    resumed = f", {there} already computed" if there else ""
    print(f"{title}: {len(pending)} points to compute{resumed}; about {clock(total)}", file=sys.stderr, flush=True)
    ended = 0
    with progress(title, units) as show:
        for job, index in pending:
            done = itertools.count(ended + 1)
            tick = partial(lambda name, done: show(name, min(next(done), units)), job.name, done)
            job.points.keep(index, job.evaluate(index, tick))
            ended += job.units  # a point's units are an estimate
            show(job.name, ended)
