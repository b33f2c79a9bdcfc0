"""Time budget of a benchmark, and its progress lines."""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.terminal.progress import clock

MOST_STEPS = 200
_SLOW = 1.0  # seconds per step above which a prepared batch or a cold cache changes less than 1 %
_RESERVE = 0.1  # fraction of the time for ending processes and drawing the figure
_TERMINAL_SECONDS, _FILE_SECONDS = 2.0, 20.0  # between two lines


class Lines:
    """Progress lines on standard error, at a limited rate."""

    def __init__(self) -> None:
        self._printed = float("-inf")

    def say(self, text: str) -> None:
        """Print a line, at most one every 2 s on a terminal and every 20 s elsewhere."""
        now = time.monotonic()
        if now - self._printed >= (_TERMINAL_SECONDS if sys.stderr.isatty() else _FILE_SECONDS):
            self._printed = now
            print(text, file=sys.stderr, flush=True)


class Budget:
    """A time budget that several networks share; each may take an equal part of the remaining time.

    Args:
        seconds: Seconds for all networks.
        parts: Number of networks.
    """

    def __init__(self, seconds: float, parts: int) -> None:
        self._end, self._parts = time.monotonic() + seconds * (1 - _RESERVE), parts
        self._until = self._end
        self._lines = Lines()
        self._title = ""

    def begin(self, title: str) -> None:
        """Begin the next network."""
        now = time.monotonic()
        self._until = now + (self._end - now) / max(1, self._parts)
        self._parts -= 1
        self._title = title

    def left(self) -> float:
        """Return the seconds left for this network; negative if it is over time."""
        return self._until - time.monotonic()

    def say(self, text: str) -> None:
        """Print the progress of this network and the time left for all, at a limited rate."""
        left = clock(max(0.0, self._end - time.monotonic()))
        self._lines.say(f"{self._title}: {text}, at most {left} left")


@dataclass(frozen=True)
class Turns:
    """Number and length of the turns of each loop."""

    rounds: int
    steps: int  # timed steps per turn
    skips: bool  # whether untimed steps precede them


def fitting(per_step: Sequence[float], skipped: Sequence[int], rounds: int, seconds: float, left: float) -> Turns:
    """Choose turns that end in time: reduce the steps first, then the rounds, to at least one of each.

    Args:
        per_step: Seconds per step of each loop.
        skipped: Untimed steps of each loop at the start of a turn; dropped if a step takes a second or more.
        rounds: Maximum number of turns per loop.
        seconds: Approximate seconds per turn, if time permits.
        left: Seconds for all rounds and one more that times the parts of a step.
    """
    steps = min(MOST_STEPS, max(2, round(seconds / statistics.median(per_step))))
    skips = max(per_step) < _SLOW
    untimed = sum(number * each for number, each in zip(skipped, per_step, strict=True)) if skips else 0.0
    fit = int((left / (rounds + 1) - untimed) / sum(per_step))
    if fit < 1:
        rounds = min(rounds, max(1, int(left / (untimed + sum(per_step))) - 1))
    return Turns(rounds, max(1, min(steps, fit)), skips)


def check_steps(per_step: Sequence[float], most: int, left: float) -> int:
    """Return the number of steps to compare losses on: a quarter of the time left, between 2 and `most` steps."""
    return max(2, min(most, int(left / 4 / sum(per_step))))
