import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.runs import LockedError, locked
from cifar_lab.runs.locks import owner

HOLD = """
import sys, time
from pathlib import Path
from cifar_lab.runs import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def _tell(lock: Path, **changes: Any) -> None:
    """Write the lock that this process would hold, with changes."""
    lock.unlink(missing_ok=True)
    with locked(lock):
        told = json.loads(lock.read_text())
    lock.write_text(json.dumps({**told, **changes}))


def test_a_lock_is_held_by_one_and_gone_afterwards(lock: Path) -> None:
    with locked(lock):
        told = owner(lock)
        assert told is not None
        assert (told["host"], told["process"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(LockedError, match=f"process {os.getpid()} on {socket.gethostname()}"), locked(lock):
            pass
    assert not lock.exists()
    assert owner(lock) is None


def test_a_killed_processs_lock_is_taken_over_and_a_living_ones_is_not(lock: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {process.pid}"), locked(lock):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.exists()
        with locked(lock):
            assert json.loads(lock.read_text())["process"] == os.getpid()


def test_a_process_that_has_got_a_dead_ones_number_does_not_hold_its_lock(lock: Path) -> None:
    _tell(lock)
    assert owner(lock) is not None
    _tell(lock, started="1")
    assert owner(lock) is None
    with locked(lock):
        pass


def test_another_hosts_lock_is_taken_over_once_its_heartbeat_is_old(lock: Path) -> None:
    _tell(lock, host="elsewhere")
    with pytest.raises(LockedError, match="on elsewhere"), locked(lock):
        pass
    os.utime(lock, (time.time() - 1000, time.time() - 1000))
    with locked(lock):
        assert json.loads(lock.read_text())["host"] == socket.gethostname()


def test_a_lock_beats(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.runs.locks.HEARTBEAT_SECONDS", 0.01)
    with locked(lock):
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 20
        while lock.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"host": 3}', "null", "[" * 100_000])
def test_a_lock_whose_writer_was_killed_in_the_middle_holds_nobody_off(lock: Path, contents: str) -> None:
    lock.write_text(contents)
    assert owner(lock) is None
    with locked(lock):
        pass


def test_a_process_of_a_number_that_none_can_have_holds_nobody_off(lock: Path) -> None:
    for process in (2**40, 2**80, "one", [1]):
        _tell(lock, process=process)
        assert owner(lock) is None


def test_a_lock_that_was_taken_over_is_left_to_the_new_owner(lock: Path) -> None:
    with locked(lock):
        lock.write_text(json.dumps({"host": "elsewhere", "process": 1, "started": "1"}))
    assert json.loads(lock.read_text())["host"] == "elsewhere"
