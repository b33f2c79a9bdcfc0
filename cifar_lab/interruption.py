"""Signals that ask a run to stop: it stops where what it has done can be kept."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cifar_lab import exit_codes

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

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[signal.Signals]]:
        return Interrupted, (self.received,)


class Interruption:
    """Notes the first signal, and lets a second one end the process at once.

    Attributes:
        received: The signal; None while there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
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

    def take_back(self) -> None:
        """Listen first again, where Lightning has put a handler in front, which would stop without saving."""
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        handler = self._before.get(signal.Signals(number))
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)  # whoever listened before us still hears it
        if self.received is None:
            self.received = signal.Signals(number)
            return
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        os.kill(os.getpid(), number)
