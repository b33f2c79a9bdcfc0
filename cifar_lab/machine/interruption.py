"""Handle signals that ask a run to stop, which it does once its progress can be saved."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cifar_lab.machine import exit_codes

# Sent by Ctrl-C, a closing terminal, a system that shuts down, Slurm and submitit.
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(KeyboardInterrupt):
    """A run has stopped at the signal `received`. The process's exit code is 130 after Ctrl-C, otherwise 143."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.received = received
        self.exit_code = exit_codes.interrupted(received)
        self.resumed_by = "the same command"  # how to resume the run; empty if nothing was saved

    @property
    def message(self) -> str:
        """The signal, and how to resume, in one line."""
        return f"interrupted by {self}" + (f"; {self.resumed_by} resumes it" if self.resumed_by else "")

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[signal.Signals]]:
        return Interrupted, (self.received,)


class Interruption:
    """Records signals, so that progress can be saved. A second signal ends the process at once.

    Earlier handlers of a signal are called at the end, because they may end the process: submitit's handler requeues
    its job. A signal with such a handler never ends the process at once, because Slurm may send several and can kill
    the process anyway. Neither does SIGHUP, which both the system and the shell send. An ignored signal, for example
    under nohup or in the background of a script, stays ignored. `received` is the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._heard: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise `Interrupted` if a signal was received."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record signals within the context, then restore earlier handlers. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.take_back()
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            for received in dict.fromkeys(self._heard):
                if (before := self._theirs(received)) is not None:
                    before(received, None)

    def take_back(self) -> None:
        """Install our handlers in place of Lightning's or Ray's, which would stop without saving."""
        for number, before in self._before.items():
            signal.signal(number, before if before is signal.SIG_IGN else self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        self._heard.append(received)
        if self.received is None or received == signal.SIGHUP or self._theirs(received) is not None:
            self.received = self.received or received
            return
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _theirs(self, number: signal.Signals) -> Callable[[int, FrameType | None], Any] | None:
        """Return the earlier handler of a signal, except Python's own for KeyboardInterrupt."""
        handler = self._before.get(number)
        return handler if callable(handler) and handler is not signal.default_int_handler else None
