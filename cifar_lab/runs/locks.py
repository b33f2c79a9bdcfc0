"""Locks of run folders, with host, process and heartbeat; the lock of a dead process can be taken over.

The locks work between hosts that share a folder on a network file system. The file system must create files
exclusively (`O_EXCL`) and replace them atomically, as NFS does since version 3. System locks (`flock`, `fcntl`) are not
used: on NFS the lock of a folder is local to a host, and the lock of a file needs a service that many mounts lack.
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

# A process on a different host counts as dead if its lock has not been touched for this time; a network file system may
# delay a time stamp by a minute.
HEARTBEAT_SECONDS = 20.0
DEAD_AFTER_SECONDS = 300.0
# An empty lock is being written, which takes an instant, or its writer was killed.
_WRITTEN_AFTER_SECONDS = 10.0
_GUARD_SECONDS = 0.05  # between two checks of a lock while waiting for it


class LockedError(UsageError):
    """A living process holds the lock."""


def owner(path: Path, now: float | None = None) -> dict[str, Any] | None:
    """Return the owner of a lock: `host`, `process`, `started` (the process's start time by the system), `heartbeat`.

    Args:
        path: The lock's file.
        now: The time on the clock of the file server, which stamps heartbeats. Default: this host's clock.

    Returns:
        None if no living process holds the lock.
    """
    try:
        record = _record(path)  # before the time stamp, which a network file system refreshes on opening
        record["heartbeat"] = path.stat().st_mtime
        return record if _is_alive(record, time.time() if now is None else now) else None
    except (FileNotFoundError, KeyError, TypeError, OverflowError):  # no lock, or not one of ours
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file in a folder that exists.

    Raises:
        LockedError: A living process holds the lock.
        OSError: The folder cannot be written.
    """
    _take(path)
    for other in path.parent.glob(f".{path.name}.*"):  # of a process killed while taking over this lock
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
        with suppress(OSError):  # if it stays, it will soon count as the lock of a dead process
            if _record(path) == writers.identity():  # else taken over, because this process seemed dead
                path.unlink()


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Give one process at a time access to a file, which need not exist; others wait while that process lives."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(path.with_name(f".{path.name}.lock")))
                break
            except LockedError:
                time.sleep(_GUARD_SECONDS)
        yield


def _take(path: Path) -> None:
    """Acquire a lock, or take it over from a dead process.

    If several processes find the owner dead, exactly one takes over: they compete for a second lock, whose name depends
    on the dead owner's record.
    """
    while not _made(path):
        with suppress(FileNotFoundError):  # it was released meanwhile
            _check_free(path)
            left = fresh(path.read_bytes)
            over = path.with_name(f".{path.name}.{hashlib.sha256(left).hexdigest()[:8]}")
            _take(over)
            try:
                _check_free(path, over.stat().st_mtime)  # both times are of one clock; this host's may be off
                if fresh(path.read_bytes) == left:
                    with replacing(path) as file:
                        json.dump(writers.identity(), file)
                    return
            finally:
                over.unlink(missing_ok=True)


def _made(path: Path) -> bool:
    """Create a lock and return True, or return False if there is one."""
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
    """Read a lock; one without content yet is `new`, and a file that is not one of our locks gives an empty record."""
    try:
        text = fresh(lambda: path.read_text(encoding="utf-8"))
        record = from_json(text) if text else {"host": "an unknown host", "process": "unknown", "new": True}
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _beat(path: Path, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            if _record(path) == writers.identity():  # else it would keep a different process's lock alive
                os.utime(path)


def _is_alive(record: dict[str, Any], now: float) -> bool:
    if "new" in record:
        return now - record["heartbeat"] < _WRITTEN_AFTER_SECONDS
    host, process, started = record["host"], record["process"], record["started"]
    if not writers.is_here(host, record.get("machine")):
        return now - record["heartbeat"] < DEAD_AFTER_SECONDS
    return writers.lives(process, started)
