"""Who trains in a run's folder: a lock with host, process and heartbeat, taken over from the dead."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cifar_lab.runs.plain import from_json

# A process on another host is dead when its lock has not been touched for so long; a network file system may hold
# back a time by a minute.
HEARTBEAT_SECONDS = 20.0
DEAD_AFTER_SECONDS = 300.0


class LockedError(ValueError):
    """A living process has the lock."""


def owner(path: Path) -> dict[str, Any] | None:
    """Who has a lock: `host`, `process`, `started` (of the process, as the system tells it) and `heartbeat`.

    Returns:
        None where nobody living has it.
    """
    try:
        told = {**_told(path), "heartbeat": path.stat().st_mtime}
        return told if _is_alive(told) else None
    except (FileNotFoundError, KeyError, TypeError, OverflowError):  # none, or its writer was killed in the middle
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: The lock's file, in a folder that exists.

    Raises:
        LockedError: A living process has it.
        OSError: The folder cannot be written.
    """
    with guarded(path):
        other = owner(path)
        if other is not None:
            raise LockedError(f"process {other['process']} on {other['host']}")
        path.write_text(json.dumps(_identity()))
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, stopped), daemon=True)
    beating.start()
    try:
        yield
    finally:
        stopped.set()
        beating.join()
        with suppress(FileNotFoundError), guarded(path):  # a run that never trained leaves no folder
            if _told(path) == _identity():  # else it was taken over from a process that seemed dead
                path.unlink()


def _told(path: Path) -> dict[str, Any]:
    """What a lock says; empty where there is none, or its writer was killed in the middle."""
    try:
        told = from_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _beat(path: Path, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Let one process at a time look at a lock and take it, or do what else no other may do meanwhile.

    Args:
        path: A file, which need not exist, in the folder whose turn it is.
    """
    guard = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _identity() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid())}


def _is_alive(told: dict[str, Any]) -> bool:
    host, process, started = told["host"], told["process"], told["started"]
    if host != socket.gethostname():
        return time.time() - told["heartbeat"] < DEAD_AFTER_SECONDS
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(process) == started  # else another process has got its number


def _started(process: int) -> str:
    """When a process began, in the system's own count; empty where the system does not tell, or it has ended."""
    with suppress(OSError):
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    return ""
