"""Numbers of training images, from the data settings."""

from collections.abc import Mapping
from typing import Any

_CIFAR10_IMAGES = 50_000
_TRAINING_IMAGES = {
    "CIFAR10DataModule": _CIFAR10_IMAGES,
    "CIFAR100DataModule": 50_000,
    "SVHNDataModule": 73_257,
    "FashionMNISTDataModule": 60_000,
}


def train_available(data: Mapping[str, Any], unknown: int | None = None) -> int | None:
    """Return the number of training images that the protocol leaves; `unknown` is the total of external data."""
    total = _TRAINING_IMAGES.get(str(data.get("_target_")).rpartition(".")[2], data.get("num_train", unknown))
    if data.get("imbalance", 1) != 1:
        total = unknown
    return None if total is None else total - round(data.get("val_fraction", 0) * total)


def train_size(data: Mapping[str, Any]) -> int:
    """Return the number of training images of an epoch; external data counts as CIFAR-10's 50,000."""
    available = train_available(data, unknown=_CIFAR10_IMAGES)
    assert available is not None
    return min(available, data["train_size"] or available)
