"""Division into training and validation images by the protocol, class imbalance and label noise."""

from typing import NamedTuple

import torch
from torch import Tensor

from cifar_lab.data.files import DataError
from cifar_lab.data.images import LabelledImages, keyed_generator, stratified_split

# Second of a generator key's two numbers: the purpose of the draws.
_HELD_OUT, _TAKEN, _LEFT_OUT, _MISLABELLED = range(4)


class Division(NamedTuple):
    """The parts of a data set."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    available: int  # number of training images after the protocol's split and the imbalance


def divide(
    train: LabelledImages,
    test: LabelledImages,
    num_classes: int,
    *,
    val_fraction: float = 0.0,
    train_size: int | None = None,
    split_seed: int = 0,
    imbalance: float = 1.0,
    label_noise: float = 0.0,
) -> Division:
    """Hold out images, imbalance the classes, take `train_size` of the rest and mislabel some of them, in this order.

    Arguments are those of `InMemoryDataModule`. Validation and test images keep their class proportions and labels.

    Raises:
        DataError: A part would be empty, or `train_size` exceeds the number of images.
    """
    val = test
    if val_fraction:
        count = round(val_fraction * len(train.labels))
        if not 0 < count < len(train.labels):
            raise DataError(f"protocol.val_fraction={val_fraction} holds out {count:,} of {len(train.labels):,} images")
        held_out, rest = stratified_split(train.labels, count, keyed_generator(split_seed, _HELD_OUT))
        train, val = train.take(rest), train.take(held_out)
    if imbalance != 1:
        train = train.take(long_tailed(train.labels, imbalance, num_classes, keyed_generator(split_seed, _LEFT_OUT)))
    available = len(train.labels)
    if train_size is not None:
        if not 1 <= train_size <= available:
            raise DataError(f"data.train_size={train_size} is outside 1 to {available:,}, the number of images")
        taken, _ = stratified_split(train.labels, train_size, keyed_generator(split_seed, _TAKEN))
        train = train.take(taken)
    if label_noise:
        generator = keyed_generator(split_seed, _MISLABELLED)
        train = train._replace(labels=mislabelled(train.labels, label_noise, num_classes, generator))
    return Division(train, val, test, available)


def long_tailed(labels: Tensor, factor: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Keep the share `factor ** (c / (num_classes - 1))` of each class c (arXiv:1901.05555, section 5.1).

    Args:
        labels: int64 `(N,)`.
        factor: Share that the last class keeps, above 0; the first keeps all. Counts are rounded down, but at least 1.
        num_classes: At least 2.
        generator: Draws the images to keep.

    Returns:
        The int64 indices of the kept images, in ascending order.
    """
    order = torch.randperm(len(labels), generator=generator)
    kept = []
    for label in range(num_classes):
        members = order[labels[order] == label]
        kept.append(members[: max(1, int(len(members) * factor ** (label / (num_classes - 1))))])
    return torch.cat(kept).sort().values


def mislabelled(labels: Tensor, fraction: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Give a fraction of the images a label drawn from the other classes (symmetric noise, arXiv:1804.06872).

    Args:
        labels: int64 `(N,)`.
        fraction: Share of the images, rounded to a whole number of them, that get a wrong label.
        num_classes: At least 2.
        generator: Draws images and labels.
    """
    chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
    noisy = labels.clone()
    noisy[chosen] += torch.randint(1, num_classes, chosen.shape, generator=generator)
    return noisy % num_classes
