"""CIFAR-10 from its published files (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images").

Reads the binary layout, which contains no pickle, and the Python layout, with an unpickler restricted to numpy arrays.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from cifar_lab.data.archives import CIFAR10_1
from cifar_lab.data.files import (
    FILES,
    IMAGES_PER_FILE,
    RECORD_BYTES,
    DataError,
    check_checksum,
    find,
    locate,
    once,
    read_array,
)
from cifar_lab.data.images import NUM_CLASSES, LabelledImages
from cifar_lab.data.pickles import read_batch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Digests of a split's sorted records, which do not depend on the layout or the order of the images. Computed from the
# real images, whose channel means and standard deviations equal the published ones in all digits.
DIGESTS = {
    "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
    "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
}
# MD5s of the Python layout's files, as in `torchvision.datasets.CIFAR10`.
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
        root: The folder that contains `cifar-10-batches-bin` or `cifar-10-batches-py`, or one of these folders; the
            binary layout is preferred. Default: `default_root()`.
        verify: Compare the images of the binary layout, in any order, with CIFAR-10's digest, and the files of the
            Python layout with their published MD5s before unpickling. Sizes and labels are always checked.
        images_per_file: Number of images in each of the six files.

    Returns:
        The training images, in the order of the files, and the test images.

    Raises:
        DataError: Files are missing, or do not have the published content.
    """
    folder, suffix = find(root, images_per_file)
    read = _read_binary if suffix else _read_pickle
    splits = []
    if verify and not suffix:
        for name, published in MD5.items():
            check_checksum(folder / name, f"md5:{published}")
    for split, names in FILES.items():
        records = np.concatenate([read(folder / f"{name}{suffix}", images_per_file) for name in names])
        if verify and suffix and (actual := digest(records)) != DIGESTS[split]:
            raise DataError(
                f"the {split} images in {folder} ({', '.join(names)}) are not CIFAR-10's: their digest is {actual}, "
                f"not {DIGESTS[split]}; unpack the archive again, or set data.verify=false to use them as they are"
            )
        images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        splits.append(LabelledImages(torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64))))
    return splits[0], splits[1]


def load_once(
    root: Path | str | None = None, verify: bool = True, images_per_file: int = IMAGES_PER_FILE
) -> tuple[LabelledImages, LabelledImages]:
    """Read the images like `load`, or return those of the last call if the files are the same and unchanged.

    The next job of a sweep then does not read them again. Arguments and errors are those of `load`. The tensors are
    shared and must not be modified.
    """
    folder, suffix = find(root, images_per_file)
    paths = [folder / f"{name}{suffix}" for names in FILES.values() for name in names]
    return once(load, paths, folder.resolve(), verify, images_per_file)


def load_10_1(root: Path | str | None = None, verify: bool = True) -> LabelledImages:
    """Read the 2,000 images of CIFAR-10.1, version v6 (arXiv:1806.00451), a later test set of the same classes.

    Raises:
        DataError: Files are missing, or do not have the published content.
    """
    folder = locate(CIFAR10_1, root)
    paths = [folder / name for name in CIFAR10_1.files]
    for path, archive in zip(paths, CIFAR10_1.archives, strict=True) if verify else ():
        check_checksum(path, archive.checksum)
    images, labels = map(read_array, paths)
    return LabelledImages.checked(images, labels, NUM_CLASSES)


def digest(records: np.ndarray) -> str:
    """Hash records, uint8 `(N, 3073)` of a label and an image's planes: the SHA-256 of their sorted SHA-256 digests."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(record).digest() for record in records))).hexdigest()


def _read_binary(path: Path, images_per_file: int) -> np.ndarray:
    records = np.fromfile(path, np.uint8).reshape(images_per_file, RECORD_BYTES)
    _check_labels(records[:, 0], path)
    return records


def _read_pickle(path: Path, images_per_file: int) -> np.ndarray:
    planes, labels = read_batch(path, "labels", images_per_file)
    _check_labels(labels, path)
    return np.column_stack([labels.astype(np.uint8), planes])


def _check_labels(labels: np.ndarray, path: Path) -> None:
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise DataError(f"{path} has labels outside 0 to {NUM_CLASSES - 1}; unpack the archive again")
