"""Labelled images in memory, their statistics, and stratified splits."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cifar_lab.data.files import DataError

NUM_CLASSES = 10


class LabelledImages(NamedTuple):
    """Images uint8 `(N, 32, 32, 3)`, 0 to 255 and channels last, with their int64 labels `(N,)`."""

    images: Tensor
    labels: Tensor

    @classmethod
    def checked(
        cls, images: Tensor | np.ndarray, labels: Tensor | np.ndarray, num_classes: int | None = None
    ) -> "LabelledImages":
        """Check and convert images, uint8 `(N, 32, 32, 3)`, and labels, integers `(N,)`, of numpy or torch.

        Raises:
            DataError: Shapes or dtypes differ from these, there are no images, or a label is outside 0 to
                `num_classes` - 1; None sets no upper limit.
        """
        images, labels = torch.as_tensor(images), torch.as_tensor(labels)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3) or not len(images):
            kind = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            raise DataError(f"images must be uint8 (N, 32, 32, 3), 0 to 255 and channels last, not {kind}")
        if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
            kind = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
            raise DataError(f"{len(images):,} images need as many integer labels, not {kind}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (num_classes is not None and high >= num_classes):
            raise DataError(f"labels are from {low} to {high}, outside 0 to {(num_classes or high + 1) - 1}")
        return cls(images, labels.to(torch.int64))

    def take(self, indices: Tensor) -> "LabelledImages":
        """Select the images at int64 `indices`, in that order."""
        return LabelledImages(self.images[indices], self.labels[indices])


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Compute the mean and standard deviation of each channel of uint8 images `(N, H, W, 3)`, to four digits.

    Values are scaled to [0, 1]. The deviation of a constant channel is 1, so that it can be a divisor.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(3, 256, dtype=torch.float64)
    for chunk in images.split(1_000):
        counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in chunk.unbind(3)])
    shares = counts / counts.sum(1, keepdim=True)
    means = shares @ values
    stds = (shares * (values - means[:, None]) ** 2).sum(1).sqrt()
    return [round(mean, 4) for mean in means.tolist()], [round(std, 4) or 1.0 for std in stds.tolist()]


def keyed_generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose draws depend only on `key`.

    A key consists of non-negative integers below 2**32. Different keys, including keys of different lengths, give
    independent streams.
    """
    return torch.Generator().manual_seed(key_seed(*key))


def key_seed(*key: int) -> int:
    """Return a seed for torch from non-negative integers below 2**32."""
    # SeedSequence pads its entropy with zeros, so (1,) and (1, 0) would give the same stream without the length.
    (state,) = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state) >> 1


def stratified_split(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split images by their int64 `labels` `(N,)`, with equal class proportions in both parts, up to rounding.

    Returns:
        The int64 indices of the `count` images drawn by the generator, and of the rest, each in ascending order.

    Raises:
        DataError: `count` is negative, or exceeds the number of images.
    """
    if not 0 <= count <= len(labels):
        raise DataError(f"cannot take {count:,} of {len(labels):,} images")
    order = torch.randperm(len(labels), generator=generator)
    classes, sizes = labels.unique(return_counts=True)
    # Largest-remainder method: round each share down, then give one more image to the largest remainders.
    shares, remainders = sizes * count // len(labels), sizes * count % len(labels)
    shares[remainders.argsort(descending=True, stable=True)[: count - int(shares.sum())]] += 1
    first = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in zip(classes, shares.tolist(), strict=True):
        first[order[labels[order] == label][:share]] = True
    return first.nonzero()[:, 0], (~first).nonzero()[:, 0]
