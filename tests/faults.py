"""Kills and signals at a chosen place: signals in this process too, kills in processes of the command's own."""

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

# Processes are forked where everything is imported and one command line has been composed.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.preloaded"])


class Fault(NamedTuple):
    """A signal that a process sends itself."""

    # `step` (a training batch begins), `batch` (it has ended), `epoch` (its checkpoint is saved), `validation` and
    # `test` (a batch of it begins), `save` (half of the last checkpoint is written), `replace` (the one before has
    # been moved)
    place: str
    count: int  # the how manyeth time
    number: signal.Signals = signal.SIGKILL
    # in which of the processes that train together it happens; another signal than SIGKILL goes to the one that has
    # started them. None where there is one process.
    rank: int | None = None


ENDED = 2**22 + 1  # a process that has ended: above the largest number


def unfinished(name: str) -> str:
    """The name of what a killed process leaves of `name`, which it was writing."""
    here, _, started = writers.tag().split("-")
    return f".{name}.{here}-{ENDED}-{started}.abcdefgh.part"


class Ended(NamedTuple):
    """How a process ended: its exit code, -9 after a SIGKILL, and what it printed."""

    code: int | None
    output: str


def command(*arguments: str, **options: Any) -> Ended:
    """Run `python -m cifar_lab.train` in a process of its own, in the current folder, as `start` does."""
    started = start(*arguments, **options)
    return started()


def start(
    *arguments: str,
    fault: Fault | None = None,
    before: Callable[[], None] | None = None,
    output: Path | None = None,
) -> Callable[[], Ended]:
    """Start it, and return what waits for its end; the process's number is the `pid` of that.

    Args:
        arguments: The command line.
        fault: To make in it.
        before: What the process calls first.
        output: The file for what it prints; None takes a new one in the current folder.
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script
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
    # Processes that train together begin with what this one has imported.
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
    # Lightning sets back every signal after training, to what Python knows of.
    numbers = _SignalConnector._valid_signals() - {signal.SIGPROF}
    _SignalConnector._valid_signals = staticmethod(lambda: numbers)  # type: ignore[method-assign]


@contextmanager
def armed(fault: Fault) -> Iterator[None]:
    """Make a fault in this process, which must outlast it: a signal that a run listens to."""
    own = signal.default_int_handler if fault.number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(fault.number, own)  # ignored in the background of a script, or by nohup
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
            # Of the last checkpoint, not the best.
            yield _Half(file, send) if options["keep"] is not None and due() else file

    return half


def _moving(move: Callable[..., None], due: Callable[[], bool], send: Callable[[], None]) -> Callable[..., None]:
    """`os.replace`, but for a signal before the last checkpoint takes its place."""

    def moved(source: Any, target: Any) -> None:
        if Path(target).name == "last.ckpt" and due():
            send()
        move(source, target)

    return moved


class _Half:
    """A file that gets half of what is written, then a signal."""

    def __init__(self, file: IO[bytes], send: Callable[[], None]) -> None:
        self._file, self._send = file, send

    def write(self, contents: memoryview) -> None:
        self._file.write(contents[: len(contents) // 2])
        self._file.flush()
        self._send()
