"""Augmentation of whole batches, with separate random numbers for each image.

An augmentation is called as `(images, generator)` with uint8 images `(B, 32, 32, 3)` and returns images of the same
shape and dtype. One with `by_visit = True` also gets the batch's `Visit`. Random numbers are drawn on the CPU for the
whole batch, so a batch does not depend on the device.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_lab.data.images import keyed_generator

# First two of a generator key's three numbers, for the flips of the whole run.
_FLIPS = (1, 0)


class Visit(NamedTuple):
    """The images of a batch, and when they are visited."""

    seed: int  # the loader's seed
    epoch: int  # from 0
    indices: Tensor  # int64 `(B,)` on the CPU, indices of the images in the training set
    num_images: int  # number of training images
    times: Tensor  # int64 `(B,)` on the CPU, number of earlier visits of each image; `epoch` without a `Selection`


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy random numbers from the CPU to a device without synchronising."""
    # Copies from pageable memory are synchronous; copies from pinned memory overlap with running kernels.
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images unchanged, without drawing random numbers."""
    return images


def flip_crop(images: Tensor, generator: torch.Generator, padding: int = 4, reflect: bool = False) -> Tensor:
    """Crop at a random offset of the padded image, then flip left to right with probability 1/2.

    The augmentation of arXiv:1512.03385, section 4.2, in the report's order.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        padding: Pixels on each side; offsets are drawn uniformly from 0 to 2 * padding.
        reflect: Pad by reflection instead of with black pixels.
    """
    offsets = torch.randint(2 * padding + 1, (2, len(images)), generator=generator)
    flipped = torch.rand(len(images), generator=generator) < 0.5
    return _moved(images, offsets, flipped, padding, reflect)


def _moved(images: Tensor, offsets: Tensor, flipped: Tensor, padding: int, reflect: bool) -> Tensor:
    """Crop at `offsets`, int64 `(2, B)`, then mirror where `flipped`, `(B,)`, is true or 1; both are on the CPU."""
    tops, lefts, mirrored = to_device(torch.cat([offsets, flipped[None]]), images.device)
    return flip(crop(images, tops, lefts, padding, reflect), mirrored)


class AlternatingFlip:
    """Translate images at random, and mirror each one at every second visit (arXiv:2404.00498, section 3.6).

    An image is mirrored with probability 1/2 at its first visit. Then mirrored and original images alternate, so two
    consecutive epochs contain every image and its mirror image once. The first draw depends only on the run's seed and
    the image's index. Translations are crops of the padded image. Departure: the paper has no jitter; see `jitter`.

    Args:
        padding: Largest translation in pixels along each axis.
        reflect: Pad by reflection, as in the paper, instead of with black pixels.
        brightness: Largest relative change of an image's brightness.
        contrast: Largest relative change of an image's contrast.
        cutout: Side in pixels of a black square at a random position, see `cut_square`; 0 for none.
    """

    by_visit = True

    def __init__(
        self,
        padding: int = 2,
        reflect: bool = True,
        brightness: float = 0.0,
        contrast: float = 0.0,
        cutout: int = 0,
    ) -> None:
        self.padding, self.reflect = padding, reflect
        self.brightness, self.contrast, self.cutout = brightness, contrast, cutout

    def __call__(self, images: Tensor, generator: torch.Generator, visit: Visit) -> Tensor:
        """Augment uint8 images `(B, H, W, 3)`; `generator` draws translations, jitter and squares."""
        offsets = torch.randint(2 * self.padding + 1, (2, len(images)), generator=generator)
        flipped = _first_flips(visit.seed, visit.num_images)[visit.indices] ^ (visit.times % 2)
        moved = _moved(images, offsets, flipped, self.padding, self.reflect)
        changed = jitter(moved, generator, self.brightness, self.contrast)
        return cut_square(changed, generator, self.cutout) if self.cutout else changed


@lru_cache(maxsize=2)
def _first_flips(seed: int, count: int) -> Tensor:
    """Draw which of `count` images are mirrored at visits 0, 2, 4, ...: int64 `(count,)`, 0 or 1."""
    return torch.randint(2, (count,), generator=keyed_generator(*_FLIPS, seed))


def color_jitter(
    images: Tensor,
    generator: torch.Generator,
    brightness: float = 0.2,
    contrast: float = 0.2,
    padding: int = 4,
    reflect: bool = False,
) -> Tensor:
    """Crop and flip like `flip_crop`, then change brightness and contrast like `jitter`."""
    return jitter(flip_crop(images, generator, padding, reflect), generator, brightness, contrast)


def jitter(images: Tensor, generator: torch.Generator, brightness: float, contrast: float) -> Tensor:
    """Scale the brightness, then the contrast of each image by random factors.

    Factors are uniform on [max(0, 1 - x), 1 + x] for a strength x, as in torchvision's `ColorJitter`. Departure:
    `ColorJitter` also randomises the order of the two changes.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator; nothing is drawn if both strengths are 0.
        brightness: Strength, a fraction.
        contrast: Strength, a fraction.
    """
    if not brightness and not contrast:
        return images
    strengths = torch.tensor([[brightness], [contrast]], dtype=torch.float64)
    lows = (1 - strengths).clamp(min=0)
    drawn = torch.rand(2, len(images), generator=generator, dtype=torch.float64)
    return adjust(images, *(lows + (1 + strengths - lows) * drawn))


def adjust(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Scale images like torchvision's `adjust_brightness`, then `adjust_contrast`.

    A value x becomes b x, then c x + (1 - c) m, each clamped to [0, 255] and rounded down, where m is the mean grey
    level of the brightened image.

    Args:
        images: uint8 `(B, H, W, 3)`.
        brightness: Factors b, float64 `(B,)` on the CPU.
        contrast: Factors c, float64 `(B,)` on the CPU.
    """
    factors = torch.stack([brightness, contrast, 1 - contrast]).float()[:, :, None, None]
    scale, stretch, rest = to_device(factors, images.device)
    # Rows of values instead of pixels are faster, as in `normalise`.
    bright = (images.flatten(2) * scale).clamp_(max=255).to(torch.uint8)
    red, green, blue = bright.view(images.shape).unbind(3)
    grey = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()
    means = grey.mean((1, 2), keepdim=True)
    return (bright * stretch).add_(means * rest).clamp_(0, 255).to(torch.uint8).view(images.shape)


def crop(images: Tensor, tops: Tensor, lefts: Tensor, padding: int, reflect: bool = False) -> Tensor:
    """Crop each padded image to the size of the original.

    Args:
        images: `(B, H, W, C)`.
        tops: int64 `(B,)`, the window's first row in the padded image, 0 to 2 * padding.
        lefts: int64 `(B,)`, the window's first column.
        padding: Pixels on each side, zeros unless `reflect`.
        reflect: Pad by reflection; edge pixels are not repeated.

    Raises:
        ValueError: `reflect` is set, and `padding` is not below the image's height and width.
    """
    count, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding)).contiguous()
    if reflect:
        _reflect(padded, padding)
    row = padded.stride(1)
    # View a window at every byte of the padded batch; selecting B of them copies whole rows instead of pixels.
    num_windows = padded.numel() - (height - 1) * row - width * channels + 1
    windows = padded.as_strided((num_windows, height, width * channels), (1, row, 1))
    starts = torch.arange(count, device=images.device) * padded.stride(0) + tops * row + lefts * channels
    return windows.index_select(0, starts).view(images.shape)


def _reflect(padded: Tensor, padding: int) -> None:
    """Fill the padding of images `(B, H + 2 padding, W + 2 padding, C)` by reflection, in place."""
    if padding >= min(padded.shape[1:3]) - 2 * padding:
        raise ValueError(f"padding={padding} must be below the image's sides to pad by reflection")
    # One row or column at a time is three times as fast as concatenating slices; torch cannot reflect uint8.
    for axis in (2, 1):
        edge = padded.shape[axis] - 1 - padding
        for step in range(1, padding + 1):
            padded.select(axis, padding - step).copy_(padded.select(axis, padding + step))
            padded.select(axis, edge + step).copy_(padded.select(axis, edge - step))


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror images `(B, H, W, C)` left to right where `flipped`, `(B,)`, is true or 1."""
    # Indexing a stack of both is three times as fast as torch.where with a broadcast mask.
    both = torch.stack([images, images.flip(2)]).flatten(0, 1)
    return both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * flipped)


def cut_square(images: Tensor, generator: torch.Generator, size: int) -> Tensor:
    """Blacken a square at a random position in each image (cutout, arXiv:1708.04552).

    The square's centre is uniform over the image's pixels, and the square is clipped at the edges, as in the paper.
    Departure: the square is black, like the padding of crops. In the paper it has the mean colour, which is zero after
    normalisation.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        size: The square's side, in pixels.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError(f"size must be at least 0, not {size}")
    count, height, width, _ = images.shape
    drawn = [torch.randint(side, (count,), generator=generator) for side in (height, width)]
    rows, columns = to_device(torch.stack(drawn), images.device)
    return cut_squares(images, rows, columns, size)


def cut_squares(images: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Blacken a square of side `size` in each uint8 image of `(B, H, W, C)`, clipped at the edges.

    The centre is at `rows` and `columns`, int64 `(B,)`; for an even `size`, that is the pixel below and to the right of
    the centre.
    """
    height, width, channels = images.shape[1:]
    # Products of uint8 rows are many times as fast as masked_fill, or as `&` of a row mask and a column mask.
    values = _covered(columns, width, size).repeat_interleave(channels, dim=1)
    square = _covered(rows, height, size)[:, :, None] * values[:, None, :]
    return (images.flatten(2) * (1 - square)).view(images.shape)


def _covered(centres: Tensor, length: int, size: int) -> Tensor:
    """Return a uint8 mask `(B, length)`, 1 at positions within the window of `size` around each centre."""
    distance = torch.arange(length, device=centres.device) - (centres - size // 2)[:, None]
    return ((distance >= 0) & (distance < size)).to(torch.uint8)
