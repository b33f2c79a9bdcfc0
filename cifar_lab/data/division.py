"""Which images train, and which choose the epoch: the protocol's division, class imbalance and label noise."""

from typing import NamedTuple

import torch
from torch import Tensor

from cifar_lab.data.files import DataError
from cifar_lab.data.images import LabelledImages, keyed_generator, stratified_split

# The second of two numbers in a generator's key: the purpose of its draws.
_HELD_OUT, _TAKEN, _LEFT_OUT, _MISLABELLED = range(4)


class Division(NamedTuple):
    """The parts of a data set."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    available: int  # number of training images that the protocol and the imbalance leave


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
    """Hold images out, thin classes out, take a part of the rest and mislabel some of it, in this order.

    Arguments are those of `InMemoryDataModule`. Validation and test images keep their classes' shares and labels.

    Raises:
        DataError: A part would be empty, or `train_size` asks for more than there is.
    """
    val = test
    if val_fraction:
        count = round(val_fraction * len(train.labels))
        if not 0 < count < len(train.labels):
            raise DataError(f"protocol.val_fraction={val_fraction} of {len(train.labels):,} images is {count:,}")
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
        factor: Share that the last class keeps, above 0; the first keeps all. Counts are rounded down, to 1 at least.
        num_classes: At least 2.
        generator: Draws which images stay.

    Returns:
        Their int64 indices, in ascending order.
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
        fraction: Of the images, whose number is rounded; every one of them gets a wrong label.
        num_classes: At least 2.
        generator: Draws images and labels.
    """
    chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
    noisy = labels.clone()
    noisy[chosen] += torch.randint(1, num_classes, chosen.shape, generator=generator)
    return noisy % num_classes
