"""This process as its files name it, so that another one can tell whether it still lives."""

import hashlib
import os
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """`host`, `machine`, `process` and when that process `started`."""
    process = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "process": process, "started": _started(process)}


def is_here(host: object, machine: object) -> bool:
    """Whether a process of this host and machine can be looked at from here."""
    return (host, machine) == (socket.gethostname(), _machine())


def lives(process: int, started: str) -> bool:
    """Whether a process of this machine has not ended; another one may have got its number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(process) == started


def tag() -> str:
    """This process in a file's name."""
    return f"{_here()}-{os.getpid()}-{_started(os.getpid())}"


def has_ended(tag: str, changed: float, longest: float) -> bool:
    """Whether the process of a tag has ended, which on another machine no change for `longest` seconds tells."""
    here, _, rest = tag.partition("-")
    process, _, started = rest.partition("-")
    if here == _here() and process.isdecimal():
        return not lives(int(process), started)
    return time.time() - changed > longest


def _here() -> str:
    return hashlib.sha256(f"{socket.gethostname()} {_machine()}".encode()).hexdigest()[:8]


@cache
def _machine() -> str:
    """Where a process's number means something: this boot of a host, and the container.

    Hosts may share a name, and a restarted host or container has it again.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(process: int) -> str:
    """When a process began, in the system's own count; empty where the system does not tell, or it has ended."""
    with suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    return ""
