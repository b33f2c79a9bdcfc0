"""Cutout of whole batches, each image by its own random numbers."""

import torch
from torch import Tensor

from cifar_lab.data.augment import flip_crop, to_device


def cutout(images: Tensor, generator: torch.Generator, size: int = 16, padding: int = 4) -> Tensor:
    """Crop and flip as `flip_crop` does, then blacken a square at a random place of each image.

    Cutout (arXiv:1708.04552), with the size that it chose for CIFAR-10. The square's centre is uniform over the image's
    pixels, and what lies beyond the edges is lost, as in the paper. Departure: the square is black, like the crop's
    padding; the paper's is zero after normalisation, the mean colour.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        size: The square's side, in pixels.
        padding: Pixels of black on each side before the crop.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError(f"size must be at least 0, not {size}")
    images = flip_crop(images, generator, padding)
    count, height, width, _ = images.shape
    drawn = [torch.randint(side, (count,), generator=generator) for side in (height, width)]
    rows, columns = to_device(torch.stack(drawn), images.device)
    return cut_squares(images, rows, columns, size)


def cut_squares(images: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Blacken a square of `size` pixels in each image uint8 `(B, H, W, C)`, as far as it lies inside.

    Its centre is at `rows` and `columns`, int64 `(B,)`; with an even size, at the first pixel below and to the right.
    """
    height, width, channels = images.shape[1:]
    # Products of bytes, over whole rows of values: masked_fill, and `&` of a mask's two sides, take many times as long.
    values = _covered(columns, width, size).repeat_interleave(channels, dim=1)
    square = _covered(rows, height, size)[:, :, None] * values[:, None, :]
    return (images.flatten(2) * (1 - square)).view(images.shape)


def _covered(centres: Tensor, length: int, size: int) -> Tensor:
    """1 where a place, 0 to length - 1, lies within the window of `size` at a centre: uint8 `(B, length)`."""
    distance = torch.arange(length, device=centres.device) - (centres - size // 2)[:, None]
    return ((distance >= 0) & (distance < size)).to(torch.uint8)
