"""Augmentation of whole batches, each image by its own random numbers.

Every augmentation is called `(images, generator)` with uint8 images `(B, 32, 32, 3)` and returns images of the same
kind. Random numbers are drawn on the CPU for the whole batch, so a batch does not depend on the device.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy random numbers from the CPU to a device, without waiting for it."""
    # Copies from pageable memory are synchronous; copies from pinned memory overlap with running kernels.
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Leave the images as they are, and draw nothing."""
    return images


def flip_crop(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Crop at a random offset of the zero-padded image, then flip left to right with probability 1/2.

    The augmentation of arXiv:1512.03385, section 4.2, in the report's order.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        padding: Pixels of black on each side; offsets are uniform on 0 to 2 * padding.
    """
    offsets = torch.randint(2 * padding + 1, (2, len(images)), generator=generator)
    flipped = torch.rand(len(images), generator=generator) < 0.5
    tops, lefts, mirrored = to_device(torch.cat([offsets, flipped[None]]), images.device)
    return flip(crop(images, tops, lefts, padding), mirrored)


def crop(images: Tensor, tops: Tensor, lefts: Tensor, padding: int) -> Tensor:
    """Cut a window of the image's own size out of each zero-padded image.

    Args:
        images: `(B, H, W, C)`.
        tops: int64 `(B,)`, the window's first row in the padded image, 0 to 2 * padding.
        lefts: int64 `(B,)`, its first column.
        padding: Zeros on each side, in pixels.
    """
    count, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding)).contiguous()
    row = padded.stride(1)
    # A view of the window at every byte of the padded batch; choosing B of them copies whole rows, not pixels.
    num_windows = padded.numel() - (height - 1) * row - width * channels + 1
    windows = padded.as_strided((num_windows, height, width * channels), (1, row, 1))
    starts = torch.arange(count, device=images.device) * padded.stride(0) + tops * row + lefts * channels
    return windows.index_select(0, starts).view(images.shape)


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images `(B, H, W, C)` left to right where `(B,)` is true, or 1."""
    # Indexing a stack of both is three times as fast as torch.where with a broadcast mask.
    both = torch.stack([images, images.flip(2)]).flatten(0, 1)
    return both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * flipped)
