"""Cutout of whole batches, each image by its own random numbers."""

import torch
from torch import Tensor

from cifar_lab.data.augment import cut_square, flip_crop


def cutout(images: Tensor, generator: torch.Generator, size: int = 16, padding: int = 4) -> Tensor:
    """Crop and flip as `flip_crop` does, then blacken a square at a random place of each image.

    Cutout (arXiv:1708.04552), with the size that it chose for CIFAR-10; departures are those of `cut_square`.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        size: The square's side, in pixels.
        padding: Pixels of black on each side before the crop.

    Raises:
        ValueError: `size` is negative.
    """
    return cut_square(flip_crop(images, generator, padding), generator, size)
