"""Kills and signals at a chosen place: signals in this process too, kills in a process of the command's own."""

import faulthandler
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, Any, NamedTuple

import lightning as L
import pytest
import torch

from cifar_lab.machine import writers
from tests.conftest import CHECKOUT

# The server that forks processes has imported everything and composed one command line.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.preloaded"])


class Fault(NamedTuple):
    """A signal that a process sends to itself."""

    # `step` (a training batch begins), `batch` (a training batch has ended), `epoch` (its checkpoint is saved),
    # `validation` and `test` (a batch of it begins), `save` (half of the last checkpoint is written), `replace` (the
    # previous checkpoint has been moved)
    place: str
    count: int  # on which occurrence, from 1
    number: signal.Signals = signal.SIGKILL
    # The rank of the process in which it happens; a signal other than SIGKILL goes to the process that started the
    # ranks. None for a single process.
    rank: int | None = None


ENDED = 2**22 + 1  # above the largest process number


def unfinished(name: str) -> str:
    """Return the name of the unfinished file that a process leaves if it is killed while it writes `name`."""
    here, _, started = writers.tag().split("-")
    return f".{name}.{here}-{ENDED}-{started}.abcdefgh.part"


class Ended(NamedTuple):
    """How a process ended: exit code, -9 after a SIGKILL, and output."""

    code: int | None
    output: str


def command(*arguments: str, **options: Any) -> Ended:
    """Run `python -m cifar_lab.train` in its own process, in the current folder, with the options of `start`."""
    started = start(*arguments, **options)
    return started()


def start(
    *arguments: str,
    fault: Fault | None = None,
    before: Callable[[], None] | None = None,
    output: Path | None = None,
) -> Callable[[], Ended]:
    """Start the command and return a function that waits for its end, with the process number as `pid`.

    Args:
        arguments: The command line.
        fault: The fault to inject into the process.
        before: Called first in the process.
        output: File for the output; None creates one in the current folder.
    """
    output = (output or Path(f".output{len(list(Path.cwd().glob('.output*')))}")).absolute()
    output.write_bytes(b"")
    with chdir(CHECKOUT):  # where the server finds `tests`
        forkserver.ensure_running()
    process = _processes.Process(target=_train, args=(arguments, fault, before, str(output), os.getcwd()))
    process.start()

    def wait() -> Ended:
        process.join()
        return Ended(process.exitcode, output.read_text())

    wait.pid = process.pid  # type: ignore[attr-defined]
    return wait


def _train(
    arguments: tuple[str, ...], fault: Fault | None, before: Callable[[], None] | None, output: str, folder: str
) -> None:
    os.chdir(folder)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(handle, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell script's background processes ignore SIGINT
    _tell_where_on_sigprof()
    torch.set_num_threads(1)
    from matplotlib.figure import Figure

    from cifar_lab.config import checked
    from cifar_lab.engines.application import run_application
    from cifar_lab.train.command import launch
    from cifar_lab.train.processes import spawned
    from tests.conftest import save_blank

    Figure.savefig = save_blank  # type: ignore[assignment]
    os.fsync = lambda descriptor: None
    callbacks = []
    if fault is not None and fault.rank is None:
        _arm(fault)
    elif fault is not None:
        callbacks.append(Armed(fault))
    warnings.filterwarnings("ignore", message=".*multi-threaded.*")
    # Ranks are forked, so they start with this process's imports.
    spawned.get_context = lambda method: multiprocessing.get_context("fork")  # type: ignore[attr-defined]
    sys.argv = ["train", *arguments]
    if before is not None:
        before()
    run_application(lambda: launch(checked(arguments), callbacks))


class Armed(L.Callback):
    """Arms a fault in one of the processes that train together."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.global_rank == self.fault.rank:
            _arm(self.fault)


def _tell_where_on_sigprof() -> None:
    from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

    faulthandler.register(signal.SIGPROF, all_threads=False)  # prints the stack at once, whatever runs
    # After training, Lightning restores every signal handler that Python knows of, which does not include
    # faulthandler's.
    numbers = _SignalConnector._valid_signals() - {signal.SIGPROF}
    _SignalConnector._valid_signals = staticmethod(lambda: numbers)  # type: ignore[method-assign]


@contextmanager
def armed(fault: Fault) -> Iterator[None]:
    """Send a signal in this process, which must survive it because a run handles the signal."""
    own = signal.default_int_handler if fault.number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(fault.number, own)  # ignored in a script's background, or under nohup
    try:
        with pytest.MonkeyPatch.context() as patch:
            _arm(fault, patch.setattr)
            yield
    finally:
        signal.signal(fault.number, before)


def _arm(fault: Fault, replace: Callable[[object, str, object], None] = setattr) -> None:
    from cifar_lab.runs import checkpoints
    from cifar_lab.train.callbacks import Saving
    from cifar_lab.train.classifier import Classifier

    times = 0

    def due() -> bool:
        nonlocal times
        times += 1
        return times == fault.count

    def send() -> None:
        starter = fault.rank is not None and fault.number != signal.SIGKILL
        os.kill(os.getppid() if starter else os.getpid(), fault.number)

    def after(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if fault.place in ("step", "validation", "test") and due():
                send()
            value = method(*arguments, **options)
            if fault.place in ("batch", "epoch") and due():
                send()
            return value

        replace(owner, name, wrapped)

    places = {
        "step": (Classifier, "training_step"),
        "batch": (Saving, "on_train_batch_end"),
        "epoch": (Saving, "on_train_epoch_end"),
        "validation": (Classifier, "validation_step"),
        "test": (Classifier, "test_step"),
    }
    if fault.place in places:
        after(*places[fault.place])
    elif fault.place == "save":
        replace(checkpoints, "replacing", _half_written(checkpoints.replacing, due, send))
    else:
        replace(os, "replace", _moving(os.replace, due, send))


def _half_written(replacing: Callable[..., Any], due: Callable[[], bool], send: Callable[[], None]) -> Any:
    @contextmanager
    def half(path: Path, mode: str, **options: Any) -> Iterator[Any]:
        with replacing(path, mode, **options) as file:
            # The last checkpoint, not the best one.
            yield _Half(file, send) if options["keep"] is not None and due() else file

    return half


def _moving(move: Callable[..., None], due: Callable[[], bool], send: Callable[[], None]) -> Callable[..., None]:
    """Return `os.replace` with a signal before the last checkpoint is replaced."""

    def moved(source: Any, target: Any) -> None:
        if Path(target).name == "last.ckpt" and due():
            send()
        move(source, target)

    return moved


class _Half:
    """A file that sends a signal once half of the contents are written."""

    def __init__(self, file: IO[bytes], send: Callable[[], None]) -> None:
        self._file, self._send = file, send

    def write(self, contents: memoryview) -> None:
        self._file.write(contents[: len(contents) // 2])
        self._file.flush()
        self._send()
