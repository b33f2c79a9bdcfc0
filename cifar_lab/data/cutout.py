"""Cutout of whole batches, with separate random numbers for each image."""

import torch
from torch import Tensor

from cifar_lab.data.augment import cut_square, flip_crop


def cutout(images: Tensor, generator: torch.Generator, size: int = 16, padding: int = 4) -> Tensor:
    """Crop and flip like `flip_crop`, then blacken a square at a random position in each image.

    Cutout (arXiv:1708.04552), with the paper's size for CIFAR-10; for departures see `cut_square`.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        size: The square's side, in pixels.
        padding: Black pixels on each side before the crop.

    Raises:
        ValueError: `size` is negative.
    """
    return cut_square(flip_crop(images, generator, padding), generator, size)
