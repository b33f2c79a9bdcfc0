"""Locates published files without importing torch, so that a command line is checked before slow imports."""

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from cifar_lab.data.archives import CIFAR10, Dataset
from cifar_lab.machine.exit_codes import UsageError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

IMAGES_PER_FILE = 10_000
RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue plane, row by row
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}

_ADVICE = "unpack the archive again, or remove the folder to fetch it again"
# Folder and file extension of each published layout.
_LAYOUTS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}


class DataError(UsageError):
    """The requested data cannot be used; the message is one line that names the fix."""


def default_root() -> Path:
    """Return the default folder of published data, in the user's cache."""
    return Path(platformdirs.user_cache_dir("cifar_lab", appauthor=False)).expanduser()


def resolve(root: Path | str | None) -> Path:
    """Return `root` with `~` expanded; None or an empty name is `default_root()`.

    Raises:
        DataError: `root` is in the home folder, which is unknown.
    """
    try:
        return Path(root).expanduser() if root else default_root()
    except RuntimeError:
        advice = "set HOME, or set data.root= or CIFAR_LAB_DATA to the data's full path"
        raise DataError(f"{root or 'the cache of this user'}: the home folder is unknown; {advice}") from None


def may_download(root: Path | str | None, download: bool | None) -> bool:
    """Return whether missing files may be downloaded; if `download` is None, only into the user's cache."""
    return not root if download is None else download


def is_there(root: Path | str | None, dataset: Dataset = CIFAR10) -> bool:
    """Return whether a data set's files exist."""
    try:
        locate(dataset, root)
    except DataError:
        return False
    return True


def locate(dataset: Dataset, root: Path | str | None) -> Path:
    """Return the folder of a data set's files, in `root` or `root` itself; for CIFAR-10, of either layout.

    Raises:
        DataError: Files are missing, or see `resolve`.
    """
    if dataset is CIFAR10:
        return find(root)[0]
    root = resolve(root)
    for folder in (root / dataset.folder, root):
        if all((folder / name).is_file() for name in dataset.files):
            return folder
    raise DataError(
        f"no {dataset.title} in {root}: put {dataset.folder}/ ({', '.join(dataset.files)}) there, from {dataset.page}, "
        "or set data.root= or CIFAR_LAB_DATA to the folder that contains it; data.download=true fetches it"
    )


def matches(path: Path, checksum: str) -> tuple[bool, str]:
    """Return whether a file has a checksum of `archives`, and the file's own hexadecimal digits."""
    algorithm, _, published = checksum.partition(":")
    with path.open("rb") as file:
        hashed = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if algorithm == "git" else hashlib.new(algorithm)
        actual = hashlib.file_digest(file, lambda: hashed).hexdigest()
    return actual == published, actual


def check_checksum(path: Path, checksum: str) -> None:
    """Raise `DataError` if a file has a different checksum."""
    is_same, actual = matches(path, checksum)
    algorithm, _, published = checksum.partition(":")
    if not is_same:
        raise DataError(
            f"{path} is not the published file: its {algorithm.upper()} is {actual}, not {published}; unpack the "
            "archive again, or set data.verify=false to use it as it is"
        )


def read_array(path: Path) -> "np.ndarray":
    """Read an `npy` file; raise `DataError` if it is damaged, or holds objects, which could run code."""
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a NumPy array ({' '.join(str(error).split())[:200]})") from None


def once(read: Callable[..., T], paths: Iterable[Path], *arguments: Any) -> T:
    """Return `read(*arguments)`, and cache the last result for the next job of a sweep until `paths` change."""
    states = [path.stat() for path in paths]
    stamps = tuple(
        (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in states
    )
    return _kept(read, stamps, *arguments)


@functools.lru_cache(maxsize=1)
def _kept(read: Callable[..., Any], stamps: tuple[Any, ...], *arguments: Any) -> Any:
    return read(*arguments)


def find(root: Path | str | None, images_per_file: int = IMAGES_PER_FILE) -> tuple[Path, str]:
    """Find a complete published layout of CIFAR-10, in `root` or `root` itself; the binary layout is preferred.

    The sizes of binary files are checked.

    Returns:
        The folder of the files, and their extension: `.bin`, or empty for the Python layout.

    Raises:
        DataError: Files are missing or truncated, or see `resolve`.
    """
    root = resolve(root)
    incomplete = ""
    candidates = [(root / name, suffix) for name, suffix in _LAYOUTS.items()]
    for folder, suffix in [*candidates, *((root, suffix) for suffix in _LAYOUTS.values())]:
        paths = [folder / f"{name}{suffix}" for names in FILES.values() for name in names]
        absent = [path.name for path in paths if not path.is_file()]
        if not absent:
            for path in paths if suffix else ():
                actual, expected = path.stat().st_size, images_per_file * RECORD_BYTES
                if actual != expected:
                    raise DataError(f"{path} has {actual:,} bytes, not {expected:,}; {_ADVICE}")
            return folder, suffix
        if len(absent) < len(paths) and not incomplete:
            incomplete = f"CIFAR-10 in {folder} is incomplete: {', '.join(absent)} missing; {_ADVICE}"
    if incomplete:
        raise DataError(incomplete)
    raise DataError(
        f"no CIFAR-10 in {root}: put cifar-10-batches-bin/ (data_batch_1.bin to data_batch_5.bin, test_batch.bin) or "
        "cifar-10-batches-py/ there, unpacked from the archive of https://www.cs.toronto.edu/~kriz/cifar.html, or set "
        "data.root= or CIFAR_LAB_DATA to the folder that contains it; data.download=true fetches it, data=synthetic "
        "needs no data"
    )
