"""Processes that the command starts to train one run together on this machine.

The command's process holds the run's lock, sends the same task to each process, waits for them, and decides how the run
has ended. It forwards signals through a pipe, so no signal reaches them twice. If it ends, they end too.
"""

import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from cifar_lab.machine import ranks
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import SIGNALS, Interrupted, Interruption
from cifar_lab.runs import described
from cifar_lab.terminal.process import printing, show_nothing
from cifar_lab.train.attempt import TrainingTask
from cifar_lab.train.processes import hush, quiet_torch, trained_together

# Time between the failure of one process and the killing of the others.
GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05


@dataclass
class _Process:
    """A process, the pipes to and from it, and its answer: a time, and a result or an exception."""

    rank: int
    process: BaseProcess
    orders: Connection
    answers: Connection
    answer: tuple[float, Any] | None = None
    was_ended: bool = False

    def look(self) -> None:
        """Receive the answer, if there is one."""
        with suppress(EOFError):
            while self.answer is None and self.answers.poll():
                self.answer = self.answers.recv()

    def result(self) -> dict[str, Any] | None:
        """Return the result, or None if the process has not finished successfully."""
        return None if self.answer is None or isinstance(self.answer[1], BaseException) else self.answer[1]

    def failure(self) -> tuple[bool, float, BaseException] | None:
        """Return None, or for a failed process: whether another process caused the failure, its time, the exception."""
        if self.answer is not None and isinstance(self.answer[1], BaseException):
            return ranks.has_lost(self.answer[1]), self.answer[0], self.answer[1]
        code = self.process.exitcode
        if self.answer is not None or not code or self.was_ended:
            return None
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
        memory = ", perhaps out of memory" if code == -signal.SIGKILL else ""
        return False, 0.0, ranks.RankLostError(f"process {self.rank} {how}{memory}")


def _failures(processes: list[_Process]) -> list[tuple[bool, float, BaseException]]:
    return [failure for each in processes if (failure := each.failure()) is not None]


def trained_by(count: int, task: TrainingTask) -> dict[str, Any]:
    """Train a run that has been started in `count` processes (at least 2) on this machine, and return its result.

    Raises:
        ValueError: The callbacks cannot be pickled.
        RankLostError: One of the processes was killed.
        Interrupted: The processes stopped at a signal.
        BaseException: The first exception that one of the processes raised.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    interruption = task.attempt.interruption
    sent = replace(task, attempt=replace(task.attempt, interruption=Interruption()))
    processes: list[_Process] = []
    try:
        for rank in range(count):
            processes.append(_started(rank, count, store.port, sent))
        _wait(processes, interruption)
    finally:
        _end(processes)
    result = processes[0].result()
    if result is not None:
        return result
    raise min(_failures(processes), key=lambda failure: failure[:2])[2]


def _started(rank: int, count: int, port: int, task: TrainingTask) -> _Process:
    context = get_context("spawn")
    (received, orders), (answers, answered) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    arguments = (rank, count, port, task, received, answered)
    process = context.Process(target=_rank, args=arguments, name=f"rank {rank}")
    # The process starts with signals blocked, so that a Ctrl-C does not reach it, even during its imports.
    resource_tracker.ensure_running()  # otherwise the first start launches it, which unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(f"callbacks cannot be pickled for the training processes: {error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    received.close()
    answered.close()
    return _Process(rank, process, orders, answers)


def _wait(processes: list[_Process], interruption: Interruption) -> None:
    """Wait until all have ended, or at most `GRACE_SECONDS` after a failure; forward a received signal."""
    has_forwarded = False
    give_up = float("inf")
    while running := [each for each in processes if each.process.is_alive()]:
        wait([each.process.sentinel for each in running], timeout=_POLL_SECONDS)
        for each in processes:
            each.look()
        if interruption.received is not None and not has_forwarded:
            has_forwarded = True
            for each in running:
                with suppress(OSError):
                    each.orders.send(int(interruption.received))
        if failures := _failures(processes):
            was_killed = any(isinstance(error, ranks.RankLostError) for _, _, error in failures)
            give_up = min(give_up, time.monotonic() + (0 if was_killed else GRACE_SECONDS))
        if time.monotonic() >= give_up:
            return


def _end(processes: list[_Process]) -> None:
    for each in processes:
        if each.process.is_alive():
            each.was_ended = True
            each.process.kill()
    for each in processes:
        each.process.join()
        each.look()
        each.orders.close()
        each.answers.close()


class _Forwarded(Interruption):
    """Signals forwarded by the command's process as numbers; this process ends if the command's process does."""

    def __init__(self, orders: Connection) -> None:
        super().__init__()
        threading.Thread(target=self._listen, args=(orders,), daemon=True).start()

    def _listen(self, orders: Connection) -> None:
        try:
            while True:
                self.received = signal.Signals(orders.recv())
        except (EOFError, OSError):
            os._exit(1)


@printing()
def _rank(rank: int, count: int, port: int, task: TrainingTask, orders: Connection, answers: Connection) -> None:
    """Train as one of the processes, and send the result or the exception."""
    interruption = _Forwarded(orders)
    show_nothing()
    quiet_torch(count)
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
        os.environ.update({name: str(value) for name, value in settings.items()})
        # All processes are on this machine and must not be reachable from others.
        interfaces = [name for _, name in socket.if_nameindex()]
        os.environ.setdefault(
            "GLOO_SOCKET_IFNAME", next((name for name in ("lo", "lo0") if name in interfaces), interfaces[0])
        )
        store = TCPStore("127.0.0.1", port, is_master=False)
        if rank > 0:
            hush()
        answer: object = trained_together(task, interruption, store, rank, count)
    except BaseException as error:
        answers.send((time.time(), _portable(error)))
        sys.exit(1)
    answers.send((time.time(), answer))


def _portable(error: BaseException) -> BaseException:
    """Return a picklable exception with its traceback as a note, or the `Interrupted` that Lightning's exit hides."""
    error = next((each for each in (error, error.__context__) if isinstance(each, Interrupted)), error)
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(described(error))
    error.__cause__ = error.__context__ = None
    error.add_note(text)
    return error
