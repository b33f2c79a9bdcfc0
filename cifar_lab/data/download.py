"""Downloads archives of published data, once for all processes, and unpacks them completely or not at all."""

import gzip
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout

from cifar_lab.data.archives import Archive, Dataset
from cifar_lab.data.files import DataError, matches
from cifar_lab.terminal.printing import note
from cifar_lab.terminal.progress import progress

_BLOCK = 1 << 18  # bytes


def fetch(dataset: Dataset, root: Path, sources: Sequence[str] | None = None, *, timeout: float = 30.0) -> None:
    """Download a data set's archives and unpack them into its folder in `root`, unless that folder has files.

    If several processes fetch into the same `root`, one downloads and the others wait. Progress is printed to standard
    error.

    Args:
        dataset: A data set of `archives`.
        root: Created if it is missing.
        sources: URLs (http, https, ftp, file) of the archive or, if they end in `/`, of the folder of the archives,
            tried in this order; None for the published one.
        timeout: Seconds without data after which a URL is given up.

    Raises:
        DataError: No URL delivers an archive, or the folder cannot be written.
    """
    sources = [dataset.source] if sources is None else sources
    folder, temporary = root / dataset.folder, root / f"{dataset.folder.replace('/', '-')}.partial"
    addresses = {archive: [_address(source, archive) for source in sources] for archive in dataset.archives}
    origin = " or ".join(sources if len(addresses) > 1 else addresses[dataset.archives[0]])
    size = sum(archive.size or 0 for archive in dataset.archives)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, dataset):
            if folder.is_dir() and any(folder.iterdir()):
                return
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            try:
                (temporary / "files").mkdir(parents=True)
                note(f"fetching {dataset.title}{f' ({size / 1e6:,.0f} MB)' * (size > 0)} from {origin} into {root}")
                for archive in dataset.archives:
                    packed = temporary / archive.name
                    _download(addresses[archive], packed, archive, timeout)
                    _unpack(packed, temporary / "files", dataset)
                folder.parent.mkdir(parents=True, exist_ok=True)
                (temporary / "files").rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except DataError as error:
        failure = f"cannot fetch {dataset.title} into {root}: {error}"
    except OSError as error:
        failure = f"cannot write {dataset.title} from {origin} into {root}: {error.strerror or error}"
    else:
        return
    raise DataError(
        f"{failure}; try again, or set data.root= or CIFAR_LAB_DATA to the folder of a copy fetched by other means"
    )


def _address(source: str, archive: Archive) -> str:
    return f"{source}{archive.name}" if source.endswith("/") and source.count("/") > 3 else source


@contextmanager
def _locked(root: Path, dataset: Dataset) -> Iterator[None]:
    lock = FileLock(root / f".{dataset.title.lower()}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        note(f"another process is fetching {dataset.title} into {root}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps the file; elsewhere a waiting process notices that it is gone
            os.unlink(lock.lock_file)
        lock.release()


def _download(sources: Sequence[str], packed: Path, archive: Archive, timeout: float) -> None:
    """Write an archive from the first source that delivers it with the right checksum."""
    failures = []
    for source in sources:
        try:
            request = Request(source, headers={"User-Agent": "cifar_lab"})
            with urlopen(request, timeout=timeout) as response, packed.open("wb") as file:
                size = archive.size or int(response.headers.get("Content-Length") or 0)
                with progress(archive.name, size) as show:
                    while block := response.read(_BLOCK):
                        file.write(block)
                        show("", file.tell())
            is_same, actual = matches(packed, archive.checksum)
            if is_same:
                return
            algorithm, _, published = archive.checksum.partition(":")
            failures.append(f"{source} sent {packed.stat().st_size:,} bytes with {algorithm} {actual}, not {published}")
        except (OSError, ValueError, HTTPException) as error:
            failures.append(f"{source}: {' '.join(str(error).split())}")
    raise DataError("; ".join(failures) or "no address is given")


def _unpack(packed: Path, folder: Path, dataset: Dataset) -> None:
    """Write an archive's files to fixed paths, so that no member's name can point outside the folder."""
    if packed.name.endswith(".tar.gz"):
        with tarfile.open(packed) as members:
            for name in dataset.files:
                content = members.extractfile(f"{dataset.folder}/{name}")
                assert content is not None, "the checksum was right, so it is a file"
                (folder / name).write_bytes(content.read())
    elif packed.suffix == ".gz":
        with gzip.open(packed) as unpacked, (folder / packed.stem).open("wb") as file:
            shutil.copyfileobj(unpacked, file)
    else:
        packed.rename(folder / packed.name)
