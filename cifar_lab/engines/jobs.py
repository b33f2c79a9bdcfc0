"""How far a sweep is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: From 1.
        total: Jobs of the sweep.
        later: Jobs after it that have not finished yet.
        seconds: What each job that was trained before in this process has taken; a job adds its own.
        left: Folders of jobs that another process was training when their turn came; a job adds its own.
        again: The folders to look at, in a second turn for what was left; None in the first, which looks at all.
        beside: How many jobs run at a time.
    """

    number: int
    total: int
    later: int
    seconds: list[float]
    left: list[Path] = field(default_factory=list)
    again: frozenset[Path] | None = None
    beside: int = 1

    def __str__(self) -> str:
        return f"job {self.number} of {self.total}"

    def seconds_left(self, own: float | None = None, own_left: float | None = None) -> float | None:
        """How long this job and those after it will take, if they take as long as those before it on average.

        Args:
            own: What this job will take in all; it stands for the others where it is the first.
            own_left: What is left of it; None for all.

        Returns:
            Seconds; None if nothing is known yet.
        """
        each = sum(self.seconds) / len(self.seconds) if self.seconds else own
        if each is None:
            return None
        return (each if own_left is None else own_left) + each * -(-self.later // self.beside)


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Add to `seconds` how long it takes, whatever ends it."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds.append(time.perf_counter() - started)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
