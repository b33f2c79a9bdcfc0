"""A file from one of its addresses: resumed where it breaks off, accepted by its size and its digest."""

import hashlib
import http.client
import io
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

_CHUNK = 1 << 20
_LINE_SECONDS = 5.0


class TransferError(Exception):
    """An address did not deliver the file.

    Args:
        message: What happened.
        again: Another attempt at the same address may help.
    """

    def __init__(self, message: str, again: bool) -> None:
        super().__init__(" ".join(message.split()))  # urllib's errors about redirects have several lines
        self.again = again


@dataclass(frozen=True)
class Transfer:
    """Completes a file, in constant memory.

    Args:
        file: Its beginning, empty at first, open for appending. Emptied when it turns out to be of another file.
        size: Bytes of the whole.
        sha256: Digest of the whole, hexadecimal.
        timeout: Seconds without a byte after which a connection counts as broken.
    """

    file: io.FileIO
    size: int
    sha256: str
    timeout: float

    def run(self, sources: Sequence[str], waits: Sequence[float], console: Console) -> None:
        """Complete the file from the first source that can.

        Args:
            sources: Addresses, tried in this order.
            waits: Seconds before the second, the third, ... attempt at an address.
            console: Where to show progress.

        Raises:
            TransferError: None of them delivers it.
            OSError: The file cannot be written.
        """
        if length(self.file) >= self.size:  # a process was killed before it could use the file
            if self._hash().hexdigest() == self.sha256:
                return
            self.file.truncate(0)
        failures = []
        with _Progress(console, self.size) as progress:
            for source in sources:
                for wait in (*waits, None):
                    try:
                        self._attempt(source, progress)
                        return
                    except TransferError as error:
                        if wait is None or not error.again:
                            failures.append(f"{source} {error}")
                            break
                        say(console, f"{source} {error}; trying again in {wait:g} s")
                        time.sleep(wait)
        raise TransferError("; ".join(failures) or "no address is given", again=False)

    def _attempt(self, source: str, progress: "_Progress") -> None:
        start = length(self.file)
        headers = {"User-Agent": "cifar_lab"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._network_errors():
            response = urllib.request.urlopen(urllib.request.Request(source, headers=headers), timeout=self.timeout)
        with response:
            received = self._accept(response, start)
            digest = self._hash()
            progress.begin(received)
            while received <= self.size and (chunk := self._read(response)):
                received += len(chunk)
                _write(self.file, chunk)
                digest.update(chunk)
                progress.move(received)
        if received < self.size:
            raise TransferError(f"broke off after {received:,} of {self.size:,} bytes", again=True)
        if received > self.size or digest.hexdigest() != self.sha256:
            self.file.truncate(0)
            found = f"sha256 {digest.hexdigest()}, expected {self.sha256}"
            if received > self.size:
                found = f"more than {self.size:,} bytes"
            raise TransferError(f"sent another file: {found}", again=start > 0)  # what was there may be at fault

    def _accept(self, response: Any, start: int) -> int:
        """Where the response begins: after what is there, or at 0 from a server without ranges."""
        resumes = response.status == 206
        if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            self.file.truncate(0)
            raise TransferError("sent another range than asked for", again=True)
        begin = start if resumes else 0
        rest = response.headers.get("Content-Length", "")
        if rest.isdecimal() and begin + int(rest) != self.size:
            raise TransferError(
                f"offers another file: {begin + int(rest):,} bytes, expected {self.size:,}", again=False
            )
        self.file.truncate(begin)
        return begin

    def _read(self, response: Any) -> bytes:
        with self._network_errors():
            return response.read1(_CHUNK)  # what has arrived; read() would wait for all of it, and lose it at a timeout

    def _hash(self) -> "hashlib._Hash":
        digest = hashlib.sha256()
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            digest.update(chunk)
        return digest

    @contextmanager
    def _network_errors(self) -> Iterator[None]:
        try:
            yield
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # it has no such range
                self.file.truncate(0)
            again = error.code in (408, 416, 429) or error.code >= 500
            raise TransferError(f"answers HTTP {error.code} ({error.reason})", again) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            message, is_passing = _explain(cause, self.timeout)
            # An address that has served us before is worth another attempt whatever it is.
            raise TransferError(message, again=is_passing or length(self.file) > 0) from None


def _explain(cause: object, timeout: float) -> tuple[str, bool]:
    """What happened, and whether it may pass within seconds."""
    match cause:
        case TimeoutError():
            return f"sent nothing for {timeout:g} s", True
        case socket.gaierror():
            return "has a name that cannot be resolved (is there a network?)", False
        case ConnectionRefusedError():
            return "refuses the connection", False
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted ({cause.verify_message})", False
        case ConnectionError() | ssl.SSLError() | http.client.IncompleteRead() | http.client.BadStatusLine():
            return f"broke the connection ({cause})", True
        case _:
            return f"cannot be opened ({cause})", False


class _Progress:
    """Bytes, speed and time left: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console, size: int) -> None:
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=size)
        self._size = size
        self._next = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def begin(self, received: int) -> None:
        """Start from what was there before, which counts for no speed."""
        self._bar.reset(self._task, completed=received)

    def move(self, received: int) -> None:
        self._bar.update(self._task, completed=received)
        if self._bar.disable and time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            speed, left = self._bar.tasks[0].speed or 0, self._bar.tasks[0].time_remaining
            text = f"{received / 1e6:,.1f} of {self._size / 1e6:,.1f} MB, {speed / 1e6:.1f} MB/s"
            say(self._bar.console, text if left is None else f"{text}, {left:.0f} s left")


def say(console: Console, text: str) -> None:
    """Print one line as it is."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def length(file: io.FileIO) -> int:
    """Bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def _write(file: io.FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # an unbuffered file may take a part of it, where the disk is nearly full
        rest = rest[file.write(rest) :]
