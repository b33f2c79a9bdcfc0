import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cifar_lab.runs import LockedError, locked, locks
from cifar_lab.runs.locks import owner

HOLD = """
import sys
from pathlib import Path
from cifar_lab.runs import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

RACE = """
import os, sys
from pathlib import Path
from cifar_lab.runs import LockedError, locked
print("ready", flush=True)
os.read(int(sys.argv[2]), 1)  # until the other end is closed, for all of them
try:
    with locked(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
except LockedError:
    print("locked", flush=True)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def _write_lock(lock: Path, **changes: Any) -> None:
    """Write the lock of this process, with changes."""
    lock.unlink(missing_ok=True)
    with locked(lock):
        told = json.loads(lock.read_text())
    lock.write_text(json.dumps({**told, **changes}))


def test_a_lock_has_one_owner_and_is_removed_afterwards(lock: Path) -> None:
    with locked(lock):
        told = owner(lock)
        assert told is not None
        assert (told["host"], told["process"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(LockedError, match=rf"\b{os.getpid()}\b.*{re.escape(socket.gethostname())}"), locked(lock):
            pass
    assert not lock.exists()
    assert owner(lock) is None


def test_a_killed_processs_lock_is_taken_over_but_not_a_running_ones(lock: Path) -> None:
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"\b{process.pid}\b"), locked(lock):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.exists()
        with locked(lock):
            assert json.loads(lock.read_text())["process"] == os.getpid()


def test_a_process_with_a_reused_or_impossible_number_does_not_hold_the_lock(lock: Path) -> None:
    _write_lock(lock)
    assert owner(lock) is not None
    # A different process with this number, and numbers that no process can have.
    for changes in ({"started": "1"}, *({"process": process} for process in (2**40, 2**80, "one", [1]))):
        _write_lock(lock, **changes)
        assert owner(lock) is None


@pytest.mark.parametrize(
    "changes", [{"host": "elsewhere"}, {"machine": "a host of the same name", "process": 2**22, "started": "1"}]
)
def test_a_different_hosts_lock_is_taken_over_once_its_heartbeat_is_old(lock: Path, changes: dict[str, Any]) -> None:
    _write_lock(lock, **changes)
    with pytest.raises(LockedError, match=changes.get("host", str(2**22))), locked(lock):
        pass
    os.utime(lock, (time.time() - 1000, time.time() - 1000))
    with locked(lock):
        assert json.loads(lock.read_text())["host"] == socket.gethostname()


def test_a_lock_has_a_heartbeat(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat, utime = threading.Event(), os.utime

    def touch(path: Path) -> None:
        utime(path)
        beat.set()

    monkeypatch.setattr("cifar_lab.runs.locks.HEARTBEAT_SECONDS", 0.001)
    with locked(lock):
        utime(lock, (0, 0))
        monkeypatch.setattr(os, "utime", touch)
        assert beat.wait(20)
        assert lock.stat().st_mtime > 0


def test_a_host_whose_clock_is_ahead_keeps_the_live_lock_of_a_different_host(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_lock(lock, host="elsewhere")
    ahead = time.time() + 3_600
    monkeypatch.setattr("cifar_lab.runs.locks.time", SimpleNamespace(time=lambda: ahead))
    assert owner(lock) is None  # according to this host's clock
    with pytest.raises(LockedError, match="elsewhere"), locked(lock):  # according to the file system's clock
        pass


@pytest.mark.parametrize("racers", [3, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("left", [None, "dead"])
def test_exactly_one_of_many_concurrent_processes_gets_the_lock(lock: Path, left: str | None, racers: int) -> None:
    if left is not None:
        _write_lock(lock, host="elsewhere")
        os.utime(lock, (0, 0))
    gate, opener = os.pipe()
    command = [sys.executable, "-c", RACE, str(lock), str(gate)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "pass_fds": [gate]}
    racing = [subprocess.Popen(command, **pipes) for _ in range(racers)]
    assert [racer.stdout.readline() for racer in racing] == ["ready\n"] * racers
    os.close(opener)
    assert sorted(racer.stdout.readline() for racer in racing) == ["locked\n"] * (racers - 1) + ["mine\n"]
    os.close(gate)
    for racer in racing:
        racer.communicate()
    assert not list(lock.parent.iterdir())


def test_a_lock_that_is_being_taken_over_is_left_to_its_taker(lock: Path) -> None:
    _write_lock(lock, host="elsewhere")
    os.utime(lock, (0, 0))
    taking = lock.with_name(f".run.lock.{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}")
    with locked(taking), pytest.raises(LockedError, match=rf"\b{os.getpid()}\b"), locked(lock):
        pass
    with locked(lock):
        assert owner(lock) is not None


def test_a_heartbeat_does_not_keep_a_new_owners_lock_alive(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, told = threading.Semaphore(0), locks._record

    def look(path: Path) -> dict[str, Any]:
        looked.release()
        return told(path)

    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.001)
    with locked(lock):
        taken = lock.with_name("taken")
        taken.write_text(json.dumps({"host": "elsewhere", "process": 1, "started": "1"}))
        os.utime(taken, (0, 0))
        taken.replace(lock)
        monkeypatch.setattr(locks, "_record", look)
        assert all(looked.acquire(timeout=20) for _ in range(3))  # two heartbeats, and the start of a third
    assert lock.stat().st_mtime == 0


def test_an_empty_lock_counts_as_being_written_for_a_while(lock: Path) -> None:
    lock.touch()
    with pytest.raises(LockedError, match="unknown"), locked(lock):
        pass
    os.utime(lock, (time.time() - 60, time.time() - 60))
    with locked(lock):
        pass


@pytest.mark.parametrize("contents", ["{", "\udcff", "[]", '{"host": 3}', "null", "[" * 100_000])
def test_a_damaged_lock_stops_nobody(lock: Path, contents: str) -> None:
    lock.write_bytes(contents.encode(errors="surrogateescape"))
    assert owner(lock) is None
    with locked(lock):
        pass


def test_a_lock_that_was_taken_over_is_left_to_the_new_owner(lock: Path) -> None:
    with locked(lock):
        lock.write_text(json.dumps({"host": "elsewhere", "process": 1, "started": "1"}))
    assert json.loads(lock.read_text())["host"] == "elsewhere"
