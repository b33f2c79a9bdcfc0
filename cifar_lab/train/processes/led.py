"""Processes started by torchrun: rank 0 reads the command line and sends one run after another to the others."""

import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from cifar_lab.machine import ranks, torchrun
from cifar_lab.machine.interruption import Interrupted, Interruption
from cifar_lab.runs import DivergedError, described
from cifar_lab.terminal.process import printing, show_nothing
from cifar_lab.train.attempt import TrainingTask
from cifar_lab.train.processes import hush, quiet_torch, trained_together

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

# Rank 0 may check a long sweep before it has a run to train; if it ends, torchrun ends the others.
_PATIENCE = timedelta(days=30)


class Leader:
    """Rank 0 of torchrun's `count` processes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._sent = 0
        self._is_alone = False  # after a failure the others have ended, or wait in vain

    def trained(self, task: TrainingTask) -> dict[str, Any]:
        """Train a run together with the other processes, and return its result.

        Raises:
            RankLostError: Another process has ended, in this run or in an earlier one.
        """
        if self._is_alone:
            raise ranks.RankLostError("the other processes were lost when a run failed; start torchrun again")
        number, attempt = self._sent, replace(task.attempt, interruption=Interruption(), callbacks=())
        self._send(pickle.dumps(replace(task, attempt=attempt)))
        try:
            return trained_together(task, task.attempt.interruption, _group(self._store, number), 0, self.count)
        except Exception as error:
            self._is_alone = not isinstance(error, DivergedError)
            if not ranks.has_lost(error):
                raise
            lost = f"one of the {self.count} processes has ended; torchrun's output contains its message"
            raise ranks.RankLostError(lost) from error

    def release(self) -> None:
        """Let the other processes end."""
        with suppress(RuntimeError):  # torchrun has already ended them
            self._send(b"")

    def _send(self, payload: bytes) -> None:
        self._store.set(f"work/{self._sent}", payload)  # type: ignore[arg-type]
        self._sent += 1

    @cached_property
    def _store(self) -> "Store":
        return _connected(is_first=True)


@contextmanager
def leading() -> Iterator[Leader | None]:
    """Yield a `Leader` under torchrun, otherwise None; release the other processes at the end."""
    started = torchrun.processes()
    if started is None:
        yield None
        return
    leader = Leader(started[0] * started[1])
    quiet_torch(leader.count)
    try:
        yield leader
    finally:
        leader.release()


@printing()
def follow() -> None:
    """Run as one of torchrun's other processes: train the tasks that rank 0 sends until it releases this process."""
    rank, count = torchrun.rank(), int(os.environ["WORLD_SIZE"])
    hush()
    show_nothing()
    quiet_torch(count)
    store, number = _connected(is_first=False), 0
    while payload := store.get(f"work/{number}"):
        interruption = Interruption()
        with interruption.listening():
            try:
                trained_together(pickle.loads(payload), interruption, _group(store, number), rank, count)
            except BaseException as error:
                # Divergence and signals stop all processes at the same step, so they can train the next run together.
                causes = (error, error.__context__)
                if not isinstance(error, DivergedError) and not any(isinstance(each, Interrupted) for each in causes):
                    _leave(error, rank)
        number += 1


def _leave(error: BaseException, rank: int) -> NoReturn:
    """End this process at once; torchrun then ends the others, which wait for it."""
    if not ranks.has_lost(error):
        traceback.print_exception(error)
        print(f"error: process {rank}: {' '.join(described(error).split())}", file=sys.stderr, flush=True)
    os._exit(1)


def _connected(is_first: bool) -> "Store":
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_theirs = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(address, port, is_master=is_first and not is_theirs, wait_for_workers=False, timeout=_PATIENCE)
    # After a failure torchrun restarts all processes but keeps the old entries in its store.
    return PrefixStore(f"cifar_lab/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _group(store: "Store", number: int) -> "Store":
    """Return the part of the store for the `number`th run."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    return PrefixStore(f"group/{number}", store)
