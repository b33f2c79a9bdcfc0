"""CIFAR-10's binary archive, from one file into a folder that is there whole or not at all."""

import io
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from cifar_lab.data.files import FILES, DataError

FOLDER = "cifar-10-batches-bin"
IMAGES = [f"{name}.bin" for names in FILES.values() for name in names]
_CHUNK = 1 << 20

_CLASSES = "batches.meta.txt"
_CLASSES_LIMIT = 1_000  # bytes; it is ten words


class ArchiveError(Exception):
    """The archive holds something else than CIFAR-10's files."""


def is_complete(folder: Path, file_bytes: int) -> bool:
    """Whether the six files of images are in `folder`, with `file_bytes` bytes each; False if it is empty or missing.

    Raises:
        DataError: Something else is there.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    wrong = [name for name in IMAGES if not _has_size(folder / name, file_bytes)]
    if wrong:
        raise DataError(
            f"{folder} is no complete CIFAR-10: {', '.join(wrong)} missing or not of {file_bytes:,} bytes; remove the "
            "folder to have it fetched again, or name another by data.root= or CIFAR_LAB_DATA"
        )
    return True


def unpack(archive: io.FileIO, folder: Path, temporary: Path, file_bytes: int) -> None:
    """Write the six files of images and the names of the classes, and nothing else that the archive holds.

    Args:
        archive: The whole `.tar.gz`.
        folder: Appears when all its files are on the disk; a complete one that is there already is left as it is.
        temporary: A folder on the same file system, for this call alone; emptied first, gone afterwards.
        file_bytes: Bytes of each file of images.

    Raises:
        ArchiveError: It holds a link, a device, a path that leads elsewhere, a file twice or of another size, it lacks
            one, or it is damaged.
        OSError: The files cannot be written.
        DataError: An incomplete `folder` is there already.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _extract(archive, temporary, file_bytes)
        _sync(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not is_complete(folder, file_bytes):
                raise
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(archive: io.FileIO, folder: Path, file_bytes: int) -> None:
    sizes = dict.fromkeys(IMAGES, range(file_bytes, file_bytes + 1)) | {_CLASSES: range(1, _CLASSES_LIMIT)}
    missing = set(sizes)
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive, mode="r|gz", bufsize=_CHUNK) as members:  # a stream: in constant memory
            for member in members:
                name = _known_name(member)
                if member.size not in sizes.get(name, range(file_bytes + 1)):
                    raise ArchiveError(f"its member {member.name!r} has {member.size:,} bytes")
                if name not in sizes:
                    continue
                if name not in missing:
                    raise ArchiveError(f"its member {member.name!r} comes twice")
                missing.remove(name)
                content = members.extractfile(member)
                assert content is not None, "a regular file has content"
                with (folder / name).open("xb") as file:
                    shutil.copyfileobj(content, file, _CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"it is damaged ({error})") from None
    if missing:
        raise ArchiveError(f"it lacks {', '.join(sorted(missing))}")


def _known_name(member: tarfile.TarInfo) -> str:
    """The member's file name, empty for what need not be read."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise ArchiveError(f"its member {member.name!r} leads out of its folder")
    if not member.isdir() and member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ArchiveError(f"its member {member.name!r} is a link or a device")
    return path.name if path.parent == PurePosixPath(FOLDER) and not member.isdir() else ""


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _sync(folder: Path) -> None:
    """Make the names in a folder last through a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
