"""Files that are either whole or not there."""

import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from cifar_lab.figures import Figure

T = TypeVar("T")

_UNFINISHED = ".part"


@contextmanager
def replacing(path: Path, mode: str = "w", *, durable: bool = False, keep: Path | None = None) -> Iterator[IO[Any]]:
    """Open a file beside `path` that takes its place once it is whole.

    Args:
        path: What is to be written.
        mode: As for `open`.
        durable: Whether it must outlast a loss of power, and so be on the disk before it takes its place.
        keep: Where the file that was at `path` goes; None gives it up.

    Raises:
        OSError: It cannot be written; what was there is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
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
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def fresh(read: Callable[[], T]) -> T:
    """What `read` returns of a file that others replace, such as `path.read_text`.

    On NFS what another host has replaced between opening and reading is stale, once: the next opening finds the new.
    """
    try:
        return read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return read()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as an `npz` file, which outlasts a loss of power."""
    with replacing(path, "wb", durable=True) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write rows as CSV."""
    import pandas as pd

    with replacing(path) as file:
        pd.DataFrame(list(rows)).to_csv(file, index=False)
    return path


def write_figure(draw: Callable[[], "Figure | None"], path: Path, dpi: int = 130) -> list[Path]:
    """Draw a figure and write it as PNG, as its file; none, and no file, if there is nothing to draw or that fails.

    Raises:
        OSError: It cannot be written.
    """
    from cifar_lab.figures import painted

    picture = painted(draw, path, dpi=dpi, format="png")
    if picture is None:
        path.unlink(missing_ok=True)
        return []
    with replacing(path, "wb") as file:
        file.write(picture)
    return [path]


def remove_unfinished(folder: Path, older_than: float = 0.0) -> None:
    """Remove what a process that was killed has left unfinished.

    Args:
        folder: Where to look; not in folders below.
        older_than: Seconds since it was last written to; without them no other process may be writing there.
    """
    for path in folder.glob(f".*{_UNFINISHED}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()
