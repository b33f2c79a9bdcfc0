"""Identity of this process in its files, by which another process can tell whether it still runs."""

import hashlib
import os
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """Return `host`, `machine`, `process` and the time at which the process `started`."""
    process = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "process": process, "started": _started(process)}


def is_here(host: object, machine: object) -> bool:
    """Return whether processes of this host and machine are visible from this one."""
    return (host, machine) == (socket.gethostname(), _machine())


def lives(process: int, started: str) -> bool:
    """Return whether a process of this machine still runs; `started` tells it from a later one with its number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(process) == started


def tag() -> str:
    """Return the name of this process for use in file names."""
    return f"{_here()}-{os.getpid()}-{_started(os.getpid())}"


def has_ended(tag: str, changed: float, longest: float) -> bool:
    """Return whether the process of a tag has ended; on a different machine, whether `longest` seconds have passed.

    `changed` is the time of the last change of its file, in seconds since 1970.
    """
    here, _, rest = tag.partition("-")
    process, _, started = rest.partition("-")
    if here == _here() and process.isdecimal():
        return not lives(int(process), started)
    return time.time() - changed > longest


def _here() -> str:
    return hashlib.sha256(f"{socket.gethostname()} {_machine()}".encode()).hexdigest()[:8]


@cache
def _machine() -> str:
    """Return the scope of a process number: this boot of the host, and the container.

    The host's name is not enough: hosts may share a name, and a restarted host or container keeps it.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(process: int) -> str:
    """Return the start time of a process, in the system's clock ticks; empty if unknown, or if it has ended."""
    with suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    return ""
