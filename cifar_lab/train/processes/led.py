"""Processes that torchrun has started: the first reads the command line, and tells the others run by run."""

import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from cifar_lab.machine import torchrun
from cifar_lab.machine.interruption import Interrupted, Interruption
from cifar_lab.runs import DivergedError, described
from cifar_lab.train.attempt import Work
from cifar_lab.train.processes.member import hush, quiet_torch, trained_together

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

# The first process may look through a long sweep before it has a run to train; torchrun ends the others without it.
_PATIENCE = timedelta(days=30)


class Leader:
    """The first of torchrun's processes.

    Args:
        count: Of all of them.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._told = 0
        self._store: Store | None = None
        self._is_alone = False  # the others hang in what this one has left, or have ended

    def trained(self, work: Work) -> dict[str, Any]:
        """Train a run together with the others: its result.

        Raises:
            RankLostError: Another process has ended, in this run or in one before it.
        """
        from cifar_lab.machine import ranks

        if self._is_alone:
            raise ranks.RankLostError("the processes of torchrun are apart since a run failed; start it again")
        number = self._told
        sent = replace(work, attempt=replace(work.attempt, interruption=Interruption(), callbacks=()))
        self._tell(pickle.dumps(sent))
        try:
            return trained_together(work, work.attempt.interruption, _group(self._connected(), number), 0, self.count)
        except Exception as error:
            self._is_alone = not isinstance(error, DivergedError)
            if not ranks.has_lost(error):
                raise
            told = f"another of the {self.count} processes has ended; what it said stands among what torchrun prints"
            raise ranks.RankLostError(told) from error

    def release(self) -> None:
        """Tell the others that there is nothing more to train."""
        with suppress(RuntimeError):  # torchrun has ended them already
            self._tell(b"")

    def _tell(self, words: bytes) -> None:
        self._connected().set(f"work/{self._told}", words)  # type: ignore[arg-type]
        self._told += 1

    def _connected(self) -> "Store":
        self._store = self._store or _connected(is_first=True)
        return self._store


@contextmanager
def leading() -> Iterator[Leader | None]:
    """Be the first of torchrun's processes, if there are several; the others are released at the end."""
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


def follow() -> None:
    """Be one of torchrun's other processes: train what the first one tells, until it has no more."""
    rank, count = torchrun.rank(), int(os.environ["WORLD_SIZE"])
    hush()
    quiet_torch(count)
    store, number = _connected(is_first=False), 0
    while words := store.get(f"work/{number}"):
        interruption = Interruption()
        with interruption.listening():
            try:
                trained_together(pickle.loads(words), interruption, _group(store, number), rank, count)
            except BaseException as error:
                if not _is_shared(error):
                    _leave(error, rank)
        number += 1


def _is_shared(error: BaseException) -> bool:
    """Whether every process has this error, at the same step, so that they may go on together."""
    return isinstance(error, DivergedError) or any(isinstance(each, Interrupted) for each in (error, error.__context__))


def _leave(error: BaseException, rank: int) -> NoReturn:
    """End this process at once: the others wait for it in vain, and torchrun ends them."""
    from cifar_lab.machine import ranks

    if not ranks.has_lost(error):
        traceback.print_exception(error)
        print(f"error: process {rank}: {' '.join(described(error).split())}", file=sys.stderr, flush=True)
    os._exit(1)


def _connected(is_first: bool) -> "Store":
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_theirs = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(address, port, is_master=is_first and not is_theirs, wait_for_workers=False, timeout=_PATIENCE)
    # torchrun starts all of them again after a failure, beside what was told before.
    return PrefixStore(f"cifar_lab/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _group(store: "Store", number: int) -> "Store":
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    return PrefixStore(f"group/{number}", store)
