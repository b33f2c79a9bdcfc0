"""Files that are written completely or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from cifar_lab.machine import writers

if TYPE_CHECKING:
    from cifar_lab.figures import Figure

T = TypeVar("T")

UNFINISHED = ".part"
_OURS = re.compile(r"\..+\.([0-9a-f]{8}-\d+-\d*)\.[^.]+\.part")
_LONGEST = 3_600.0  # seconds that a different host may take to write a file


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an `OSError` name `path`: write errors name no file, and others name the temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not str(error.filename or UNFINISHED).endswith(UNFINISHED):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def replacing(path: Path, mode: str = "w", *, durable: bool = False, keep: Path | None = None) -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` once it is complete.

    Args:
        path: The file to write.
        mode: See `open`.
        durable: Flush it to the disk before it replaces `path`, so that it survives a loss of power.
        keep: New path of the file that was at `path`; None to discard it.

    Raises:
        OSError: The file cannot be written; the old one is kept.
    """
    with naming(path):
        remove_unfinished(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=unfinished(path.name), suffix=UNFINISHED)
        try:
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(name, 0o644)
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(name, path)
            if durable:
                _sync(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unfinished(name: str) -> str:
    """Return the prefix of temporary files for `name`; their suffix is `UNFINISHED`."""
    return f".{name}.{writers.tag()}."


def remove_unfinished(folder: Path, *, any_writer: bool = False) -> None:
    """Remove temporary files of killed processes from a folder, but not from its subfolders.

    Args:
        folder: The folder, which need not exist.
        any_writer: Also remove files of living processes; only valid if no other process writes there.
    """
    names: list[str] = []
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(".") and name.endswith(UNFINISHED)]
    for name in names:
        path, ours = folder / name, _OURS.fullmatch(name)
        with suppress(OSError):  # another process may remove it, too
            if any_writer or (ours and writers.has_ended(ours[1], path.stat().st_mtime, _LONGEST)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def fresh(read: Callable[[], T]) -> T:
    """Return `read()`, such as `path.read_text()`, for a file that other processes replace.

    On NFS, a file that a different host replaces between opening and reading is stale (ESTALE); opening it again finds
    the new file.
    """
    try:
        return read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return read()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as an `npz` file, flushed to the disk."""
    with replacing(path, "wb", durable=True) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write rows as CSV."""
    import pandas as pd

    with replacing(path) as file:
        pd.DataFrame(list(rows)).to_csv(file, index=False)
    return path


def write_figure(draw: Callable[[], "Figure | None"], path: Path, dpi: int = 130) -> list[Path]:
    """Draw a figure and write it as PNG.

    Returns:
        The file; none if there is nothing to draw, which removes an older file, or if drawing fails, which keeps it.

    Raises:
        OSError: The file cannot be written.
    """
    from cifar_lab.figures import painted

    picture = painted(draw, path, dpi=dpi, format="png")
    if picture is None:
        path.unlink(missing_ok=True)
    if not picture:
        return []
    with replacing(path, "wb") as file:
        file.write(picture)
    return [path]
