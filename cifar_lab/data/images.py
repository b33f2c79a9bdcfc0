"""Images in memory, and the ways to divide them."""

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
        """Images uint8 `(N, 32, 32, 3)` and whole labels `(N,)`, of numpy or torch, once a batch can be made of them.

        Raises:
            DataError: They are something else, there are none, or a label is not from 0 to `num_classes` - 1; None
                sets no limit.
        """
        images, labels = torch.as_tensor(images), torch.as_tensor(labels)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3) or not len(images):
            kind = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            raise DataError(f"images are uint8 (N, 32, 32, 3), 0 to 255 and channels last, not {kind}")
        if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
            kind = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
            raise DataError(f"labels of {len(images):,} images are as many whole numbers, not {kind}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (num_classes is not None and high >= num_classes):
            raise DataError(f"labels are from {low} to {high}, outside 0 to {(num_classes or high + 1) - 1}")
        return cls(images, labels.to(torch.int64))

    def take(self, indices: Tensor) -> "LabelledImages":
        """The images at int64 `indices`, in that order."""
        return LabelledImages(self.images[indices], self.labels[indices])


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """The mean and the deviation of each channel of uint8 images `(N, H, W, 3)`, in [0, 1], to four digits.

    The deviation of a channel that does not vary is 1, which can be divided by.
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
    """Return a CPU generator whose draws depend on `key` alone.

    A key consists of non-negative integers below 2**32. Different keys, also of different lengths, give independent
    streams.
    """
    return torch.Generator().manual_seed(key_seed(*key))


def key_seed(*key: int) -> int:
    """A seed for torch, from non-negative integers below 2**32."""
    # SeedSequence pads its entropy with zeros, so (1,) and (1, 0) would be one stream without the length.
    (state,) = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state) >> 1


def stratified_split(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Divide the images so that each class has the same share in both parts, up to rounding.

    Returns:
        The int64 indices of the `count` images that the generator draws by their int64 `labels` `(N,)`, and the indices
        of the rest, each in ascending order.

    Raises:
        DataError: `count` is negative or more than there are images.
    """
    if not 0 <= count <= len(labels):
        raise DataError(f"cannot take {count:,} of {len(labels):,} images")
    order = torch.randperm(len(labels), generator=generator)
    classes, sizes = labels.unique(return_counts=True)
    # Largest remainders: every class gets its share rounded down, and those that lost most by it one image more.
    shares, remainders = sizes * count // len(labels), sizes * count % len(labels)
    shares[remainders.argsort(descending=True, stable=True)[: count - int(shares.sum())]] += 1
    first = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in zip(classes, shares.tolist(), strict=True):
        first[order[labels[order] == label][:share]] = True
    return first.nonzero()[:, 0], (~first).nonzero()[:, 0]
