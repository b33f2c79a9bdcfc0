"""Processes of the loops, of which one runs at a time, in turns."""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cifar_lab.benchmark.watch import Over, Turn, Watch
from cifar_lab.machine.exit_codes import UsageError

# Trains with a loop's name and overrides, in turns of the watch; may write to the folder.
Train = Callable[[str, Sequence[str], Watch, Path], None]
_ENDING_SECONDS = 20


class LoopProcess:
    """A loop's process, which is stopped except during its turns."""

    def __init__(self, name: str, words: Sequence[str], train: Train, seeded: bool, folder: Path) -> None:
        self.name = name
        self.precision = self.memory_format = ""
        folder.mkdir()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_run_turns, args=(name, words, train, seeded, theirs, folder))
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait until the process is ready for a turn, and stop it."""
        how = self._receive()
        self.precision, self.memory_format = how["precision"], how["memory_format"]
        self._signal(signal.SIGSTOP)

    def take(self, turn: Turn | None) -> dict[str, Any]:
        """Run a turn, or with None the work after the last turn, and return the measurements."""
        self._signal(signal.SIGCONT)
        self._connection.send(turn)
        result = self._receive()
        self._signal(signal.SIGSTOP)
        return result

    def end(self) -> None:
        """End the process and its workers, by SIGKILL if they do not exit."""
        with suppress(OSError):
            self._signal(signal.SIGCONT)
            self._connection.send(None)
            self._process.join(_ENDING_SECONDS)
        with suppress(OSError):
            self._signal(signal.SIGKILL)
        self._process.join()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.killpg(self._process.pid, number)

    def _receive(self) -> dict[str, Any]:
        try:
            received: dict[str, Any] = self._connection.recv()
        except EOFError:
            raise UsageError(f"{self.name}: its process ended unexpectedly") from None
        if "refused" in received:
            raise UsageError(f"{self.name}: {received['refused']}")
        if "traceback" in received:
            raise RuntimeError(f"{self.name}: {received['traceback']}")
        return received


@contextmanager
def started(loops: Sequence[tuple[str, Sequence[str]]], train: Train, seeded: bool) -> Iterator[list[LoopProcess]]:
    """Start a process for each loop (name and overrides) at the same time; yield them when all are ready for a turn.

    Raises:
        ValueError: A loop does not support its overrides; the message is one line.
    """
    processes: list[LoopProcess] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, (name, words) in enumerate(loops):
                processes.append(LoopProcess(name, words, train, seeded, Path(folder) / str(number)))
            for process in processes:
                process.wait()
            yield processes
        finally:
            for process in processes:
                process.end()


def _run_turns(
    name: str, words: Sequence[str], train: Train, seeded: bool, connection: Connection, folder: Path
) -> None:
    """Train in a new process group, which includes the data loader's workers."""
    from torch import OutOfMemoryError

    os.setsid()
    with (folder / "printed.txt").open("w", encoding="utf-8") as printed:
        os.dup2(printed.fileno(), sys.stdout.fileno())
        os.dup2(printed.fileno(), sys.stderr.fileno())
        try:
            train(name, words, Watch(connection, seeded), folder)
        except Over:
            pass
        except (UsageError, OutOfMemoryError) as error:
            connection.send({"refused": str(error)})
        except BaseException:
            connection.send({"traceback": traceback.format_exc()})
