"""CIFAR-10's binary archive: downloaded once, however many processes need it, and unpacked whole or not at all."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from rich.progress import wrap_file

from cifar_lab.data.files import FILES, DataError
from cifar_lab.terminal.printing import bar_console, note

SOURCES = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SIZE = 170_052_171
FOLDER = "cifar-10-batches-bin"
_NAMES = [f"{name}.bin" for names in FILES.values() for name in names] + ["batches.meta.txt"]


def fetch(root: Path, sources: Sequence[str] = SOURCES, *, sha256: str = SHA256, timeout: float = 30.0) -> None:
    """Download the binary archive and unpack it into `root/cifar-10-batches-bin`, unless that holds something.

    Of several processes that fetch into one `root`, one downloads and the others wait for it. Progress is shown on
    standard error.

    Args:
        root: Made if it is missing.
        sources: Addresses of the archive (http, https, ftp, file), tried in this order.
        sha256: The archive's digest, hexadecimal.
        timeout: Seconds without a byte after which an address is given up.

    Raises:
        DataError: No address delivers the archive, or the folder cannot be written.
    """
    folder, temporary = root / FOLDER, root / f"{FOLDER}.partial"
    origin = " or ".join(sources)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            if folder.is_dir() and any(folder.iterdir()):
                return
            shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
            try:
                (temporary / FOLDER).mkdir(parents=True)
                archive = temporary / "cifar-10-binary.tar.gz"
                note(f"fetching CIFAR-10 ({SIZE / 1e6:,.0f} MB) from {origin} into {root}")
                _download(sources, archive, sha256, timeout)
                _unpack(archive, temporary / FOLDER)
                (temporary / FOLDER).rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except DataError as error:
        failure = f"cannot fetch CIFAR-10 into {root}: {error}"
    except OSError as error:
        failure = f"cannot write CIFAR-10 from {origin} into {root}: {error.strerror or error}"
    else:
        return
    raise DataError(
        f"{failure}; try again, or name the folder of a copy fetched by other means by data.root= or CIFAR_LAB_DATA"
    )


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    lock = FileLock(root / ".cifar-10.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        note(f"another process is fetching CIFAR-10 into {root}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps the file; elsewhere a process that waits sees that it is gone
            os.unlink(lock.lock_file)
        lock.release()


def _download(sources: Sequence[str], archive: Path, sha256: str, timeout: float) -> None:
    """Write the archive from the first source that delivers it."""
    failures = []
    for source in sources:
        try:
            request = Request(source, headers={"User-Agent": "cifar_lab"})
            with urlopen(request, timeout=timeout) as response, archive.open("w+b") as file:
                with wrap_file(response, SIZE, description="", console=bar_console(stderr=True)) as content:
                    shutil.copyfileobj(content, file)
                size = file.tell()
                file.seek(0)
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == sha256:
                return
            failures.append(f"{source} sent {size:,} bytes with sha256 {found}, not {sha256}")
        except (OSError, ValueError, HTTPException) as error:
            failures.append(f"{source}: {' '.join(str(error).split())}")
    raise DataError("; ".join(failures) or "no address is given")


def _unpack(archive: Path, folder: Path) -> None:
    """Write the archive's files; their paths are ours, so whatever its members are called, none leads elsewhere."""
    with tarfile.open(archive) as members:
        for name in _NAMES:
            content = members.extractfile(f"{FOLDER}/{name}")
            assert content is not None, "the digest was right, so it is a file"
            (folder / name).write_bytes(content.read())
