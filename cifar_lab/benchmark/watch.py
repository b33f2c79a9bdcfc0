"""Turns of a loop and the timing of its steps."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from cifar_lab.machine import hardware
from cifar_lab.train.classifier import seed_draws

PHASES = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Turn:
    """Steps that a loop takes in one turn."""

    steps: int  # timed steps
    skipped: int = 1  # untimed steps before them, to fill caches and use up batches prepared during other turns
    in_phases: bool = False  # also time the parts of a step, which synchronises with a GPU after each part


class Over(KeyboardInterrupt):
    """Raised when there are no more turns."""


class Watch:
    """Run a loop in its turns and time it.

    A loop calls `begin` when its batch is ready, `mark` after each part of a step and `end` after the step. `end` waits
    for the next turn if this one is over.

    Args:
        connection: Connection that delivers turns and takes measurements.
        seeded: Whether to seed each step like `cifar_lab.train`, so that all loops draw the same random numbers.
    """

    def __init__(self, connection: Connection, seeded: bool = False) -> None:
        self._connection = connection
        self._device = "cpu"
        self._seeded = seeded
        self._turn: Turn | None = None
        self._done = 0
        self._started = self._marked = self._ended = 0.0
        self._phases: dict[str, float] = {}
        self._losses: list[Tensor] = []

    @property
    def in_phases(self) -> bool:
        """Whether this turn times the parts of a step."""
        return self._turn is not None and self._turn.in_phases

    def leave_out(self, since: float | None = None) -> float:
        """Exclude the time since `since` (default: the end of the last step) and return it in seconds."""
        between = self.now() - (self._ended if since is None else since)
        self._started += between
        self._marked += between
        return between

    def wait(self, native: hardware.Native) -> None:
        """Send the loop's precision and memory format, and wait for its first turn."""
        self._device = native.device
        self._connection.send({"precision": native.precision, "memory_format": native.layout})
        self._take_turn()

    def begin(self, epoch: int, index: int, seed: int) -> None:
        """Start step `index` of an epoch, whose batch is ready; `seed` is the seed of the run."""
        self.mark("data")
        if self._seeded:
            seed_draws(seed, epoch, index, torch.device(self._device))

    def mark(self, phase: str) -> None:
        """Add the time since the last mark to a phase."""
        if self.in_phases:
            now = self.now()
            self.add(phase, now - self._marked)
            self._marked = now

    def now(self) -> float:
        """Return the clock in seconds, after synchronising with a GPU."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds, which may be negative, to a phase."""
        self._phases[phase] = self._phases.get(phase, 0.0) + seconds

    def end(self, loss: Tensor) -> None:
        """End a step; raise `Over` after the last one."""
        assert self._turn is not None
        self._done += 1
        self._losses.append(loss.detach())
        if self._done == self._turn.skipped:
            self._start()
        elif self._done == self._turn.skipped + self._turn.steps:
            self._send()
            self._take_turn()
        self._ended = time.perf_counter()

    def finish(self) -> None:
        """End the turn early because training has ended, and wait until its tests may run."""
        self._send(is_over=True)
        self._connection.recv()

    def send(self, result: Mapping[str, Any]) -> None:
        """Send the result of the training after the last turn."""
        self._connection.send(dict(result))

    def _send(self, is_over: bool = False) -> None:
        seconds = self.now() - self._started
        losses = torch.stack(self._losses).tolist() if self._losses else []
        memory = hardware.peak_memory_bytes(self._device)
        measured = {"seconds": seconds, "losses": losses, "memory": memory, "phases": self._phases}
        self._connection.send({**measured, "is_over": is_over})

    def _take_turn(self) -> None:
        self._turn = self._connection.recv()
        if self._turn is None:
            raise Over
        self._done, self._losses = 0, []
        if self._turn.skipped == 0:
            self._start()

    def _start(self) -> None:
        self._phases = {}
        self._started = self._marked = self.now()


def shares(seconds: float, phases: Mapping[str, float]) -> dict[str, float]:
    """Return the fraction of `seconds` spent in each phase; `framework` is the rest."""
    of_phases = {phase: phases.get(phase, 0.0) / seconds for phase in PHASES}
    return {**of_phases, "framework": max(0.0, 1 - sum(of_phases.values()))}
