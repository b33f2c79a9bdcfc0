"""Published data sets: URLs and checksums of their archives, and the files in them. Does not import torch.

MD5 checksums are torchvision's. Git checksums are SHA-1s of blobs in the repository that publishes the files.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Archive(NamedTuple):
    """A file to download."""

    name: str
    checksum: str  # `md5:`, `sha256:` or, for a blob, `git:`, followed by hexadecimal digits
    size: int | None = None  # in bytes, if known


class Dataset(NamedTuple):
    """A published data set."""

    title: str
    page: str  # the authors' web page
    source: str  # URL of the folder of the archives
    archives: tuple[Archive, ...]
    folder: str  # folder of the files, relative to the root
    files: tuple[str, ...]  # names of the files in that folder
    md5: Mapping[str, str]  # MD5s by file name, where published


_TORONTO, _CIFAR = "https://www.cs.toronto.edu/~kriz/", "https://www.cs.toronto.edu/~kriz/cifar.html"
_SVHN = {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}
_FASHION = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
CIFAR10 = Dataset(
    "CIFAR-10",
    _CIFAR,
    _TORONTO,
    (
        Archive(
            "cifar-10-binary.tar.gz",
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    ),
    "cifar-10-batches-bin",
    (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", "batches.meta.txt"),
    {},  # the images are verified against `cifar10.DIGESTS`
)
CIFAR100 = Dataset(
    "CIFAR-100",
    _CIFAR,
    _TORONTO,
    (Archive("cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),),
    "cifar-100-python",
    ("train", "test", "meta"),
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)
CIFAR10_1 = Dataset(
    "CIFAR-10.1",
    "https://github.com/modestyachts/CIFAR-10.1",
    "https://github.com/modestyachts/CIFAR-10.1/raw/master/datasets/",
    (
        Archive("cifar10.1_v6_data.npy", "git:24349cc5f3fb59648d75cd8015b5a184b1f5c250"),
        Archive("cifar10.1_v6_labels.npy", "git:e713b09cecf2ecd933970001909fcdec7c907ab0"),
    ),
    "cifar-10.1",
    ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"),
    {},
)
SVHN = Dataset(
    "SVHN",
    "http://ufldl.stanford.edu/housenumbers/",
    "http://ufldl.stanford.edu/housenumbers/",
    tuple(Archive(name, f"md5:{digest}") for name, digest in _SVHN.items()),
    "svhn",
    tuple(_SVHN),
    _SVHN,
)
FASHION_MNIST = Dataset(
    "Fashion-MNIST",
    "https://github.com/zalandoresearch/fashion-mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    tuple(Archive(f"{name}.gz", f"md5:{digest}") for name, digest in _FASHION.items()),
    "FashionMNIST/raw",
    tuple(_FASHION),
    {},  # published only for the compressed files
)
# Keyed by the names of the data modules.
DATASETS = {
    "CIFAR10DataModule": CIFAR10,
    "CIFAR100DataModule": CIFAR100,
    "SVHNDataModule": SVHN,
    "FashionMNISTDataModule": FASHION_MNIST,
}


def table() -> str:
    """Return the archives as a Markdown table."""
    rows = ["| data set | archive | checksum |", "|---|---|---|"]
    for dataset in (*DATASETS.values(), CIFAR10_1):
        for archive in dataset.archives:
            link = f"[{archive.name}]({dataset.source}{archive.name})"
            algorithm, _, digits = archive.checksum.partition(":")
            rows.append(f"| [{dataset.title}]({dataset.page}) | {link} | {algorithm} `{digits}` |")
    return "\n".join(rows)
