"""How the process that started others interprets their ends."""

import pickle
import re
import signal
import time
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest

from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.machine.ranks import RankLostError
from cifar_lab.train import run
from cifar_lab.train.processes.spawned import _failures, _portable, _Process
from tests.conftest import TINY

CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")


def process(rank: int, code: int | None = None, answer: Any = None) -> _Process:
    told, answers = Pipe(duplex=False)
    if answer is not None:
        answers.send((time.time(), answer))
    each = _Process(rank, SimpleNamespace(exitcode=code), answers, told)  # type: ignore[arg-type]
    each.look()
    return each


@pytest.mark.parametrize(
    ("ends", "kind", "facts"),
    [
        ([(1, CLOSED), (-signal.SIGKILL,)], RankLostError, r"process 1\b.*\bSIGKILL\b"),
        ([(1, CLOSED), (-signal.SIGSEGV,)], RankLostError, r"process 1\b.*\bSIGSEGV\b"),
        ([(3,)], RankLostError, r"process 0\b.* 3\b"),
        ([(1, CLOSED), (1, ValueError("first")), (1, ValueError("second"))], ValueError, "first"),
    ],
)
def test_the_first_process_that_fails_on_its_own_is_the_cause(
    ends: list[tuple[Any, ...]], kind: type[Exception], facts: str
) -> None:
    failures = _failures([process(rank, *end) for rank, end in enumerate(ends)])
    error = min(failures, key=lambda failure: failure[:2])[2]
    assert isinstance(error, kind)
    assert re.search(facts, str(error))


def test_processes_that_finished_still_train_or_were_stopped_have_not_failed() -> None:
    finished, trains, ended = process(0, 0, {"test/acc": 0.5}), process(0), process(1, -signal.SIGKILL)
    ended.was_ended = True
    assert not _failures([finished, trains, ended])
    assert (finished.result(), trains.result()) == ({"test/acc": 0.5}, None)


def portable(error: BaseException, context: BaseException | None = None) -> BaseException:
    """Return an error, raised while `context` was handled, as a different process receives it."""
    try:
        try:
            raise context or error
        except BaseException:
            raise error  # noqa: B904
    except BaseException as caught:
        return pickle.loads(pickle.dumps(_portable(caught)))


class UnsendableError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def test_an_error_keeps_its_traceback_and_an_interruption_is_found_behind_lightnings_exit() -> None:
    error = portable(ValueError("no"))
    assert isinstance(error, ValueError) and str(error) == "no"
    assert "in portable" in error.__notes__[0]
    assert str(portable(UnsendableError("one", " other"))) == "one other"
    assert isinstance(portable(SystemExit(1), Interrupted(signal.SIGTERM)), Interrupted)


def test_callbacks_that_cannot_be_sent_give_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(L.Callback):
        pass

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailedError, match="Local") as caught:
        run([*TINY, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"], callbacks=[Local()])
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())
