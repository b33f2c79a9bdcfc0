"""Computing points: how long it will take, how far it is, and going on."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cifar_lab.engines.jobs import clock
from cifar_lab.landscape.maps.points import Points

_LINE_SECONDS = 30.0
Tick = Callable[[], None]


@dataclass(frozen=True)
class Job:
    """Points of one kind that are to be computed.

    Attributes:
        name: What they are, for the progress.
        points: Where they are kept.
        evaluate: Computes a point, a quantity by its name; it calls what it is given after each unit of work.
        units: About how many units of work a point is.
        seconds: Of one unit, measured.
    """

    name: str
    points: Points
    evaluate: Callable[[int, Tick], Mapping[str, npt.ArrayLike]]
    units: int
    seconds: Callable[[], float]


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """What measures how long `work` takes, in seconds: the second of two times, once the first has warmed up."""
    known: list[float] = []

    def seconds() -> float:
        if not known:
            work()
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            known.append(time.perf_counter() - started)
        return known[0]

    return seconds


def compute(title: str, jobs: Sequence[Job]) -> None:
    """Compute every point that is not there yet; says before how long it will take, and shows how far it is.

    All of it goes to standard error: a bar on a terminal, elsewhere a line every half minute.

    Args:
        title: Of the whole.
        jobs: In the order in which they are computed.
    """
    pending = [(job, index) for job in jobs for index in job.points.pending()]
    if not pending:
        print(f"{title}: all of it is there", file=sys.stderr)
        return
    units = sum(job.units for job, _ in pending)
    total = sum(len(job.points.pending()) * job.units * job.seconds() for job in jobs if job.points.pending())
    there = sum(job.points.count for job in jobs) - len(pending)
    resumed = f", {there} more are there" if there else ""
    print(f"{title}: {len(pending)} points to compute{resumed}; about {clock(total)}", file=sys.stderr, flush=True)
    with _Shown(title, units) as shown:
        for job, index in pending:
            shown.begin(job.name)
            job.points.keep(index, job.evaluate(index, shown.advance))
            shown.end(job.units)


class _Shown:
    """A bar, or lines."""

    def __init__(self, title: str, units: int) -> None:
        self._title, self._units = title, units
        self._ended = self._within = 0
        self._name = ""
        self._started = time.perf_counter()
        self._next = self._started + _LINE_SECONDS
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._is_bar = console.is_terminal
        self._task = self._bar.add_task(title, total=units)

    def __enter__(self) -> "_Shown":
        if self._is_bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_bar:
            self._bar.stop()

    def begin(self, name: str) -> None:
        self._name = name

    def advance(self) -> None:
        self._within += 1
        self._show()

    def end(self, units: int) -> None:
        """A point has been computed, whatever units it was thought to take."""
        self._ended, self._within = self._ended + units, 0
        self._show()

    def _show(self) -> None:
        done, now = min(self._ended + self._within, self._units), time.perf_counter()
        if self._is_bar:
            self._bar.update(self._task, completed=done, description=f"{self._title}: {self._name}")
        elif now >= self._next and done:
            left = (now - self._started) * (self._units - done) / done
            share = f"{done / self._units:.0%}"
            print(f"{self._title}: {self._name}, {share} done, {clock(left)} left", file=sys.stderr, flush=True)
            self._next = now + _LINE_SECONDS
