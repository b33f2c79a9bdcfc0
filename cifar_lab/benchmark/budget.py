"""How long a benchmark may take, and lines about how far it is."""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_lab.terminal.progress import clock

MOST_STEPS = 200
_SLOW = 1.0  # seconds a step, from which on a prepared batch or a cold cache is below a percent of it
_RESERVE = 0.1  # share of the time for untimed work: ending processes, drawing the figure
_TERMINAL_SECONDS, _FILE_SECONDS = 2.0, 20.0  # between two lines


class Lines:
    """Lines on standard error about how far something is, one now and then."""

    def __init__(self) -> None:
        self._printed = float("-inf")

    def say(self, text: str) -> None:
        """Print a line, at most one every 2 s on a terminal and every 20 s elsewhere."""
        now = time.monotonic()
        if now - self._printed >= (_TERMINAL_SECONDS if sys.stderr.isatty() else _FILE_SECONDS):
            self._printed = now
            print(text, file=sys.stderr, flush=True)


class Budget:
    """Seconds that several networks share. Each network may use an equal part of the time that is left.

    Args:
        seconds: For all of them.
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
        """Seconds left for this network; negative if there are none."""
        return self._until - time.monotonic()

    def say(self, text: str) -> None:
        """Print how far this network is, and the time left for all, now and then."""
        left = clock(max(0.0, self._end - time.monotonic()))
        self._lines.say(f"{self._title}: {text}, at most {left} left")


@dataclass(frozen=True)
class Turns:
    """Turns that fit into a time."""

    rounds: int
    steps: int  # timed steps of a turn
    skips: bool  # whether steps before them are left out


def fitting(per_step: Sequence[float], skipped: Sequence[int], rounds: int, seconds: float, left: float) -> Turns:
    """Choose turns that end in time: fewer steps first, then fewer rounds, at least one of each.

    Args:
        per_step: Seconds of a step of each loop.
        skipped: Steps that each loop leaves out at a turn's start; none where a step takes a second or more.
        rounds: The most turns of a loop.
        seconds: About how long a turn takes, if there is time.
        left: Seconds for all rounds, and one more, in which the parts of a step are timed.
    """
    steps = min(MOST_STEPS, max(2, round(seconds / statistics.median(per_step))))
    skips = max(per_step) < _SLOW
    untimed = sum(number * each for number, each in zip(skipped, per_step, strict=True)) if skips else 0.0
    fit = int((left / (rounds + 1) - untimed) / sum(per_step))
    if fit < 1:
        rounds = min(rounds, max(1, int(left / (untimed + sum(per_step))) - 1))
    return Turns(rounds, max(1, min(steps, fit)), skips)


def check_steps(per_step: Sequence[float], most: int, left: float) -> int:
    """How many steps the loops' losses are compared over: a quarter of the time left, at least 2, at most `most`."""
    return max(2, min(most, int(left / 4 / sum(per_step))))
