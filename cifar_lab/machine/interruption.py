"""Signals that ask a run to stop: it stops where what it has done can be kept."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cifar_lab.machine import exit_codes

# What a terminal, a system that shuts down, Slurm and submitit send.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(KeyboardInterrupt):
    """A run has stopped because a signal asked for it.

    Args:
        received: The signal.

    Attributes:
        received: The same.
        exit_code: What the process should end with: 130 after Ctrl-C, else 143.
        goes_on: What goes on with the run.
    """

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.received = received
        self.exit_code = exit_codes.interrupted(received)
        self.goes_on = "the same command"

    @property
    def told(self) -> str:
        """What has happened, and what goes on from there, in one line."""
        return f"interrupted by {self}; {self.goes_on} goes on where it stopped"

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[signal.Signals]]:
        return Interrupted, (self.received,)


class Interruption:
    """Notes signals, so that what has been done can be kept; a second one ends the process at once.

    Whoever listened to a signal before hears it at the end, as it may end the process: submitit queues its job again.
    A signal of theirs never ends the process at once, since Slurm may send several, and has a harder one to force it.

    Attributes:
        received: The first signal; None while there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._heard: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Stop, if a signal asked for it.

        Raises:
            Interrupted: One did.
        """
        if self.received is not None:
            raise Interrupted(self.received)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals; handlers that were there before are back at the end. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            for received in dict.fromkeys(self._heard):
                if (before := self._theirs(received)) is not None:
                    before(received, None)

    def take_back(self) -> None:
        """Listen first again, where Lightning has put a handler in front, which would stop without saving."""
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        self._heard.append(received)
        if self.received is None or self._theirs(received) is not None:
            self.received = self.received or received
            return
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _theirs(self, number: signal.Signals) -> Callable[[int, FrameType | None], Any] | None:
        """What listened to a signal before, but for what raises Python's KeyboardInterrupt."""
        handler = self._before.get(number)
        return handler if callable(handler) and handler is not signal.default_int_handler else None
