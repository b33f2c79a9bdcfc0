"""Readers of published data sets other than CIFAR-10, in the layouts that torchvision writes.

Each takes the folder of the files and returns training and test images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from cifar_lab.data.files import DataError
from cifar_lab.data.images import LabelledImages
from cifar_lab.data.pickles import read_batch, unpickled

FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_DAMAGED = "unpack the archive again"


def cifar100(folder: Path, labels: str) -> tuple[list[str], LabelledImages, LabelledImages]:
    """Read the names of the `fine` or `coarse` classes and the images of `cifar-100-python` (Krizhevsky 2009).

    Raises:
        DataError: A file has different content.
    """
    names = unpickled(folder / "meta", lambda meta: [name.decode() for name in meta[f"{labels}_label_names".encode()]])

    def split(name: str) -> LabelledImages:
        planes, of_images = read_batch(folder / name, f"{labels}_labels", None)
        images = np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return LabelledImages.checked(images, of_images, len(names))

    return names, split("train"), split("test")


def svhn(folder: Path) -> tuple[LabelledImages, ...]:
    """Read the images of `train_32x32.mat` and `test_32x32.mat`, in which label 10 is the digit 0.

    Raises:
        DataError: A file has different content.
    """
    from scipy.io import loadmat

    def split(name: str) -> LabelledImages:
        path = folder / f"{name}_32x32.mat"
        try:
            content = loadmat(path, variable_names=["X", "y"])
            images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].ravel().astype(np.int64) % 10
        except Exception as error:  # damaged bytes can make the reader raise nearly anything
            raise DataError(f"{path} is not an SVHN file ({' '.join(str(error).split())[:200]}); {_DAMAGED}") from None
        return LabelledImages.checked(np.ascontiguousarray(images), labels, 10)

    return split("train"), split("test")


def fashion_mnist(folder: Path) -> tuple[LabelledImages, ...]:
    """Read the images of Fashion-MNIST's four files, grey in three channels, with two black pixels on each side.

    Raises:
        DataError: A file has different content.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    def parts() -> Iterator[LabelledImages]:
        for name in ("train", "t10k"):
            try:
                images: Tensor = read_image_file(str(folder / f"{name}-images-idx3-ubyte"))
                labels: Tensor = read_label_file(str(folder / f"{name}-labels-idx1-ubyte"))
            except Exception as error:  # torchvision uses assertions
                words = " ".join(str(error).split())[:200] or type(error).__name__
                raise DataError(f"{folder} has no Fashion-MNIST ({name}: {words}); {_DAMAGED}") from None
            padded = F.pad(images, (2, 2, 2, 2))[..., None].expand(-1, -1, -1, 3)
            yield LabelledImages.checked(padded.contiguous(), labels, len(FASHION_MNIST_CLASSES))

    return tuple(parts())
