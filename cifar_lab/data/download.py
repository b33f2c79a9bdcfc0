"""CIFAR-10 from its published address: downloaded once whatever breaks off, by however many processes."""

import errno
import io
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from cifar_lab.data.archive import FOLDER, IMAGES, ArchiveError, is_complete, unpack
from cifar_lab.data.files import IMAGES_PER_FILE, RECORD_BYTES, DataError
from cifar_lab.data.transfer import Transfer, TransferError, length, say

SOURCES = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SIZE = 170_052_171
WAITS = (1.0, 3.0, 9.0)

_PARTIAL = "cifar-10-binary.tar.gz.partial"
_LOCK_SECONDS = 0.2


def fetch(
    root: Path,
    sources: Sequence[str] = SOURCES,
    *,
    sha256: str = SHA256,
    size: int = SIZE,
    images_per_file: int = IMAGES_PER_FILE,
    timeout: float = 30.0,
    waits: Sequence[float] = WAITS,
    console: Console | None = None,
) -> Path:
    """Download the binary archive and unpack it into `root/cifar-10-batches-bin`, unless that is there.

    A download that breaks off goes on where it stopped, in this call or the next. Of several processes that fetch into
    one `root`, one downloads and the others wait for it.

    Args:
        root: Made if it is missing.
        sources: Addresses of the archive, tried in this order.
        sha256: The archive's digest, hexadecimal.
        size: The archive's bytes.
        images_per_file: Images in each of the six files.
        timeout: Seconds without a byte after which a connection counts as broken.
        waits: Seconds before the second, the third, ... attempt at an address.
        console: Where to show progress; None is standard error.

    Returns:
        The folder with the six files of images and the names of the classes.

    Raises:
        DataError: No address delivers the archive, the folder cannot be written or holds an incomplete data set, or
            the archive holds something else.
    """
    console = console or Console(stderr=True)
    root = root.expanduser()
    folder = root / FOLDER
    file_bytes = images_per_file * RECORD_BYTES
    origin = " or ".join(sources)
    advice = "try again, or name the folder of a copy fetched by other means by data.root= or CIFAR_LAB_DATA"
    try:
        if is_complete(folder, file_bytes):
            return folder
        root.mkdir(parents=True, exist_ok=True)
        with _partial_archive(root, console) as archive:
            if not is_complete(folder, file_bytes):  # while this process waited, another may have fetched it
                _check_space(root, size - length(archive) + len(IMAGES) * file_bytes)
                say(console, f"fetching CIFAR-10 ({size / 1e6:,.0f} MB) from {origin} into {root}")
                Transfer(archive, size, sha256, timeout).run(sources, waits, console)
                unpack(archive, folder, _path(archive).with_suffix(".unpacked"), file_bytes)
            archive.truncate(0)
    except TransferError as error:
        raise DataError(f"cannot fetch CIFAR-10 into {root}: {error}; {advice}") from None
    except ArchiveError as error:
        raise DataError(f"cannot unpack CIFAR-10 from {origin} into {root}: {error}; {advice}") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write CIFAR-10 from {origin} into {root}: {reason}; {advice}") from None
    return folder


@contextmanager
def _partial_archive(root: Path, console: Console) -> Iterator[io.FileIO]:
    """The beginning of the archive, for this process alone, empty at first; what there is of it outlives a failure."""
    archive, is_shared = _lock_partial(root, console)
    try:
        yield archive
    except (ArchiveError, OSError):  # nothing to go on with, or no room for it
        archive.truncate(0)
        raise
    finally:
        if not is_shared or length(archive) == 0:
            _path(archive).unlink(missing_ok=True)
        archive.close()


def _lock_partial(root: Path, console: Console) -> tuple[io.FileIO, bool]:
    """Open the file that all processes share, once its lock is free; one of our own where there are no locks."""
    path = root / _PARTIAL
    is_waiting = False
    while True:
        archive = io.FileIO(str(path), "a+")
        try:
            import fcntl  # not on Windows

            fcntl.flock(archive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            archive.close()
            if not is_waiting:
                say(console, f"another process is fetching CIFAR-10 into {root}; waiting for it")
                is_waiting = True
            time.sleep(_LOCK_SECONDS)
        except (ImportError, OSError):
            archive.close()
            path.unlink(missing_ok=True)
            return io.FileIO(str(root / f"{secrets.token_hex(4)}-{_PARTIAL}"), "a+"), False
        else:
            if _is_at(path, archive):  # its last owner may have removed it
                return archive, True
            archive.close()


def _is_at(path: Path, archive: io.FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(archive.fileno()))
    except FileNotFoundError:
        return False


def _path(archive: io.FileIO) -> Path:
    return Path(str(archive.name))


def _check_space(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free")
