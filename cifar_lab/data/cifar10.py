"""CIFAR-10 from its published files (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images").

Two layouts are read: the binary one, which holds no pickle, and the Python one, by an unpickler that knows numpy's
arrays and nothing else.
"""

import functools
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from cifar_lab.data.files import FILES, IMAGES_PER_FILE, RECORD_BYTES, DataError, find
from cifar_lab.data.images import NUM_CLASSES, LabelledImages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of the split's sorted records, so the layout and the order of the images do not matter; computed from the real
# images, whose channel means and deviations equal the published ones to all their digits.
DIGESTS = {
    "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
    "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
}
# Of the Python layout's files; the same as in `torchvision.datasets.CIFAR10`.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def load(
    root: Path | str | None = None, verify: bool = True, images_per_file: int = IMAGES_PER_FILE
) -> tuple[LabelledImages, LabelledImages]:
    """Read the training images and the test images.

    Args:
        root: The folder that holds `cifar-10-batches-bin` or `cifar-10-batches-py`, or one of those itself; the
            binary layout is preferred. None is `default_root()`.
        verify: Compare the images of the binary layout with CIFAR-10's digest, whatever their order, and the files of
            the Python layout with their published MD5s, before one is unpickled. Sizes and labels are checked always.
        images_per_file: Images in each of the six files.

    Returns:
        Training images, in the order of the files, and test images.

    Raises:
        DataError: Files are missing, or hold something else.
    """
    folder, suffix = find(root, images_per_file)
    read = _read_binary if suffix else _read_pickle
    splits = []
    if verify and not suffix:
        _check_md5(folder)
    for split, names in FILES.items():
        records = np.concatenate([read(folder / f"{name}{suffix}", images_per_file) for name in names])
        if verify and suffix and (found := digest(records)) != DIGESTS[split]:
            raise DataError(
                f"the {split} images in {folder} ({', '.join(names)}) are not CIFAR-10's: their digest is {found}, not "
                f"{DIGESTS[split]}; unpack the archive again, or say data.verify=false to use them as they are"
            )
        images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        splits.append(LabelledImages(torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64))))
    return splits[0], splits[1]


def _check_md5(folder: Path) -> None:
    for name, published in MD5.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != published:
            raise DataError(
                f"{folder / name} is not the published file: its MD5 is {found}, not {published}; unpack the archive "
                "again, or say data.verify=false to use it as it is"
            )


def load_once(
    root: Path | str | None = None, verify: bool = True, images_per_file: int = IMAGES_PER_FILE
) -> tuple[LabelledImages, LabelledImages]:
    """Return what the last call has read, for the next job of a sweep, unless the files are others or have changed.

    Arguments and errors are those of `load`. The tensors are shared: they are not to be changed.
    """
    folder, suffix = find(root, images_per_file)
    states = [(folder / f"{name}{suffix}").stat() for names in FILES.values() for name in names]
    stamps = tuple(
        (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in states
    )
    return _kept(folder.resolve(), verify, images_per_file, stamps)


_kept = functools.lru_cache(maxsize=1)(lambda folder, verify, count, stamps: load(folder, verify, count))


def digest(records: np.ndarray) -> str:
    """The SHA-256 of the sorted SHA-256 digests of records uint8 `(N, 3073)`: each a label, then an image's planes."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(record).digest() for record in records))).hexdigest()


def _read_binary(path: Path, images_per_file: int) -> np.ndarray:
    records = np.fromfile(path, np.uint8).reshape(images_per_file, RECORD_BYTES)
    _check_labels(records[:, 0], path)
    return records


class _Dtype:
    """Stands for numpy's dtype in a pickle: bytes, and nothing that holds pointers."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy's array in a pickle; numpy itself would let the file's state decide what is a pointer."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, content = state
        assert isinstance(dtype, _Dtype)
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _ArrayUnpickler(pickle._Unpickler):
    """Makes arrays of bytes, texts, numbers and lists; refuses everything else that a pickle could call.

    It is Python's own, slower by a tenth of a second for a file: the one in C makes room for as many values as the
    number of the one to be remembered says, so that ten bytes can fill any memory.
    """

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no array needs") from None


def _read_pickle(path: Path, images_per_file: int) -> np.ndarray:
    try:
        batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        planes, labels = batch[b"data"].values, np.asarray(batch[b"labels"])
    except Exception as error:  # damaged bytes can make the unpickler raise nearly anything
        words = " ".join(str(error).split())[:200]  # names in a pickle may have several lines
        raise DataError(f"{path} is no batch of CIFAR-10 ({words}); unpack the archive again") from None
    expected = (images_per_file, RECORD_BYTES - 1)
    if planes.shape != expected or labels.shape != expected[:1] or labels.dtype.kind != "i":
        raise DataError(
            f"{path} holds {planes.dtype} images {planes.shape} and {labels.dtype} labels {labels.shape}, not uint8 "
            f"{expected} and {expected[:1]} integers; unpack the archive again"
        )
    _check_labels(labels, path)
    return np.column_stack([labels.astype(np.uint8), planes])


def _check_labels(labels: np.ndarray, path: Path) -> None:
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise DataError(f"{path} holds labels outside 0 to {NUM_CLASSES - 1}; unpack the archive again")
