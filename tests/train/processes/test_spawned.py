"""What the process that has started others makes of their ends."""

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
from cifar_lab.train.processes.spawned import _portable, _Process
from tests.conftest import TINY

CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")


def process(rank: int, code: int | None = None, answer: Any = None) -> _Process:
    told, answers = Pipe(duplex=False)
    if answer is not None:
        answers.send((time.time(), answer))
    each = _Process(rank, SimpleNamespace(exitcode=code), answers, told)  # type: ignore[arg-type]
    each.look()
    return each


def cause(*processes: _Process) -> BaseException:
    failures = [failure for each in processes if (failure := each.failure()) is not None]
    return min(failures, key=lambda failure: failure[:2])[2]


def test_who_was_killed_is_the_cause_though_others_told_first_that_it_cannot_be_reached() -> None:
    error = cause(process(0, 1, CLOSED), process(1, -signal.SIGKILL))
    assert isinstance(error, RankLostError)
    assert re.search(r"process 1\b.*\bSIGKILL\b", str(error))
    assert re.search(r"process 1\b.*\bSIGSEGV\b", str(cause(process(0, 1, CLOSED), process(1, -signal.SIGSEGV))))
    assert re.search(r"process 0\b.* 3\b", str(cause(process(0, 3))))


def test_the_first_error_of_its_own_is_the_cause() -> None:
    errors = cause(process(0, 1, CLOSED), process(1, 1, ValueError("first")), process(2, 1, ValueError("second")))
    assert str(errors) == "first"
    assert process(0, 0, {"test/acc": 0.5}).result() == {"test/acc": 0.5}
    assert process(0, None).failure() is None and process(0, None).result() is None


def test_what_was_ended_on_purpose_has_not_failed() -> None:
    ended = process(1, -signal.SIGKILL)
    ended.was_ended = True
    assert ended.failure() is None


def raised(error: BaseException, context: BaseException | None = None) -> BaseException:
    try:
        try:
            if context is not None:
                raise context
            raise error
        except KeyboardInterrupt:
            raise error  # noqa: B904
    except BaseException as caught:
        return pickle.loads(pickle.dumps(_portable(caught)))


class UnsendableError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def test_an_error_comes_with_its_traceback() -> None:
    error = raised(ValueError("no"))
    assert isinstance(error, ValueError) and str(error) == "no"
    assert "in raised" in error.__notes__[0]
    assert str(raised(UnsendableError("one", " other"))) == "one other"


def test_an_interruption_is_found_behind_lightnings_exit() -> None:
    assert isinstance(raised(SystemExit(1), Interrupted(signal.SIGTERM)), Interrupted)


def test_callbacks_that_cannot_be_sent_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(L.Callback):
        pass

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailedError, match="Local") as caught:
        run([*TINY, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"], callbacks=[Local()])
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())
