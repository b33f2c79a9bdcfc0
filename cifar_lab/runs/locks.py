"""Who trains in a run's folder: a lock with host, process and heartbeat, taken over from the dead.

It holds between hosts that share the folder by a network file system. All that is asked of it is that a file is made
exclusively (`O_EXCL`) and replaced atomically, as NFS does since version 3. Locks of the system (`flock`, `fcntl`) are
not used: on NFS a folder's is the host's own, and a file's needs a service that many mounts leave out.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cifar_lab.machine import writers
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.files import UNFINISHED, fresh, naming, replacing
from cifar_lab.runs.reading import from_json

# A process on another host is dead when its lock has not been touched for so long; a network file system may hold
# back a time by a minute.
HEARTBEAT_SECONDS = 20.0
DEAD_AFTER_SECONDS = 300.0
# An empty lock is being written, or its writer was killed in the middle; it is written at once.
_WRITTEN_AFTER_SECONDS = 10.0
_GUARD_SECONDS = 0.05  # between two looks at a lock that is waited for


class LockedError(UsageError):
    """A living process has the lock."""


def owner(path: Path, now: float | None = None) -> dict[str, Any] | None:
    """Who has a lock: `host`, `process`, `started` (of the process, as the system tells it) and `heartbeat`.

    Args:
        path: The lock's file.
        now: The time on the file server's clock, which stamps heartbeats; None takes this host's.

    Returns:
        None where nobody living has it.
    """
    try:
        record = _record(path)  # before its time: to open a file makes a network file system look at it anew
        record["heartbeat"] = path.stat().st_mtime
        return record if _is_alive(record, time.time() if now is None else now) else None
    except (FileNotFoundError, KeyError, TypeError, OverflowError):  # none, or not one of ours
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, in a folder that exists.

    Raises:
        LockedError: A living process has it.
        OSError: The folder cannot be written.
    """
    _take(path)
    for other in path.parent.glob(f".{path.name}.*"):  # of a process that was killed as it took this lock over
        if other.suffix != UNFINISHED and owner(other) is None:
            other.unlink(missing_ok=True)
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, stopped), daemon=True)
    beating.start()
    try:
        yield
    finally:
        stopped.set()
        beating.join()
        with suppress(OSError):  # what cannot be removed is a dead process's lock soon
            if _record(path) == writers.identity():  # else it was taken over from a process that seemed dead
                path.unlink()


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Let one process at a time work on a file, which need not exist; the others wait, for as long as it lives."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(path.with_name(f".{path.name}.lock")))
                break
            except LockedError:
                time.sleep(_GUARD_SECONDS)
        yield


def _take(path: Path) -> None:
    """Make a lock ours, or take it over from the dead.

    Of those that find the same owner dead one takes over: who has a lock of its own for that, named by what the dead
    one has left.
    """
    while not _made(path):
        with suppress(FileNotFoundError):  # it was given back meanwhile
            _check_free(path)
            left = fresh(path.read_bytes)
            over = path.with_name(f".{path.name}.{hashlib.sha256(left).hexdigest()[:8]}")
            _take(over)
            try:
                _check_free(path, over.stat().st_mtime)  # two times of one clock, however far off this host's is
                if fresh(path.read_bytes) == left:
                    with replacing(path) as file:
                        json.dump(writers.identity(), file)
                    return
            finally:
                over.unlink(missing_ok=True)


def _made(path: Path) -> bool:
    """Make a lock where there is none; whether there was none."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with naming(path), os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(writers.identity(), file)
    except BaseException:  # such as a full disk
        path.unlink(missing_ok=True)
        raise
    return True


def _check_free(path: Path, now: float | None = None) -> None:
    other = owner(path, now)
    if other is not None:
        raise LockedError(f"process {other['process']} on {other['host']}")


def _record(path: Path) -> dict[str, Any]:
    """What a lock says; only that it is new where nothing is written yet, and nothing where it is not one of ours."""
    try:
        text = fresh(lambda: path.read_text(encoding="utf-8"))
        record = from_json(text) if text else {"host": "a host unknown yet", "process": "unknown", "new": True}
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _beat(path: Path, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            if _record(path) == writers.identity():  # else it would keep another's alive
                os.utime(path)


def _is_alive(record: dict[str, Any], now: float) -> bool:
    if "new" in record:
        return now - record["heartbeat"] < _WRITTEN_AFTER_SECONDS
    host, process, started = record["host"], record["process"], record["started"]
    if not writers.is_here(host, record.get("machine")):
        return now - record["heartbeat"] < DEAD_AFTER_SECONDS
    return writers.lives(process, started)
