"""RandAugment of whole batches, with separate random numbers for each image."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as tvf
from torchvision.transforms.v2 import functional as tvf2

from cifar_lab.data.augment import flip_crop, to_device

MAX_MAGNITUDE = 30


class Operation(NamedTuple):
    """One of RandAugment's operations, as in torchvision; its strength is linear in the magnitude."""

    function: Callable[[Tensor, float], Tensor]  # of images (N, 3, H, W) and a strength, in the operation's own units
    weakest: float = 0.0  # strength at magnitude 0
    strongest: float = 0.0  # at magnitude 30
    signed: bool = False  # half of the images get the negative strength
    moves_pixels: bool = False  # each pixel of the result is some pixel of the image, or black


def _shear(image: Tensor, x: float, y: float) -> Tensor:
    angles = [math.degrees(math.atan(slope)) for slope in (x, y)]
    return tvf.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0, 0])


def _translate(image: Tensor, x: float, y: float) -> Tensor:
    height, width = image.shape[-2:]
    pixels = [int(x * width), int(y * height)]
    return tvf.affine(image, angle=0.0, translate=pixels, scale=1.0, shear=[0.0, 0.0])


def _adjust_sharpness(images: Tensor, factor: float) -> Tensor:
    """Adjust sharpness like torchvision, which copies its kernel from the CPU and so waits for a GPU at each call."""
    # Contiguous planes, because on a GPU a channels_last convolution may round to TensorFloat-32.
    planes = images.contiguous()
    smoothed = planes.clone()
    kernel = _smoothing_kernel(images.device).expand(images.shape[1], 1, 3, 3)
    smoothed[..., 1:-1, 1:-1] = F.conv2d(planes.float(), kernel, groups=images.shape[1]).round().to(images.dtype)
    return (factor * planes + (1 - factor) * smoothed).clamp(0, 255).to(images.dtype)


@cache
def _smoothing_kernel(device: torch.device) -> Tensor:
    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5
    return to_device(kernel / kernel.sum(), device)


OPERATIONS = {
    "Identity": Operation(lambda image, _: image),
    # Slope: pixels sideways per row, or down per column.
    "ShearX": Operation(lambda image, slope: _shear(image, slope, 0), 0, 0.3, signed=True, moves_pixels=True),
    "ShearY": Operation(lambda image, slope: _shear(image, 0, slope), 0, 0.3, signed=True, moves_pixels=True),
    # Share of the image's side: the paper's magnitudes are for images of 331 pixels, moved by up to 150.
    "TranslateX": Operation(lambda image, x: _translate(image, x, 0), 0, 150 / 331, signed=True, moves_pixels=True),
    "TranslateY": Operation(lambda image, y: _translate(image, 0, y), 0, 150 / 331, signed=True, moves_pixels=True),
    "Rotate": Operation(lambda image, degrees: tvf.rotate(image, degrees), 0, 30, signed=True, moves_pixels=True),
    # Difference of the factor from 1, which leaves the image unchanged.
    "Brightness": Operation(lambda image, change: tvf.adjust_brightness(image, 1 + change), 0, 0.9, signed=True),
    "Color": Operation(lambda image, change: tvf.adjust_saturation(image, 1 + change), 0, 0.9, signed=True),
    "Contrast": Operation(lambda image, change: tvf.adjust_contrast(image, 1 + change), 0, 0.9, signed=True),
    "Sharpness": Operation(lambda image, change: _adjust_sharpness(image, 1 + change), 0, 0.9, signed=True),
    "Posterize": Operation(lambda image, bits: tvf.posterize(image, round(bits)), 8, 4),
    "Solarize": Operation(lambda image, threshold: tvf.solarize(image, threshold), 255, 0),
    "AutoContrast": Operation(lambda image, _: tvf.autocontrast(image)),
    # The function of v1 takes one image at a time and waits for the device at each; the results are the same.
    "Equalize": Operation(lambda image, _: tvf2.equalize(image)),
}
"""Keyed by torchvision's names, in its order."""


def randaugment(
    images: Tensor, generator: torch.Generator, num_ops: int = 2, magnitude: int = 9, padding: int = 4
) -> Tensor:
    """Crop and flip like `flip_crop`, then apply random operations, drawn for each image and round.

    Equals `torchvision.transforms.RandAugment` (arXiv:1909.13719) on a uint8 tensor bit for bit: 14 operations and
    their strengths, some of which differ from the paper's, nearest-neighbour interpolation, and black fill. Departure:
    the paper also cuts out a square. On PIL images torchvision's results are nearly the same: at magnitude 9 the levels
    of Color, Contrast, Sharpness and AutoContrast differ by at most 1 of 255.

    Args:
        images: uint8 `(B, H, W, 3)`.
        generator: A CPU generator.
        num_ops: Number of operations per image, each drawn uniformly from the 14.
        magnitude: Strength of all the operations, 0 to 30.
        padding: Black pixels on each side before the crop.

    Raises:
        ValueError: `num_ops` is negative, or `magnitude` is outside 0 to 30.
    """
    if num_ops < 0:
        raise ValueError(f"num_ops must be at least 0, not {num_ops}")
    if not 0 <= magnitude <= MAX_MAGNITUDE:
        raise ValueError(f"magnitude must be from 0 to {MAX_MAGNITUDE}, not {magnitude}")
    images = flip_crop(images, generator, padding)
    for operations, negated in zip(*draw_operations(num_ops, len(images), generator), strict=True):
        images = _apply_operations(images, operations, negated, magnitude)
    return images


def draw_operations(num_ops: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the operation of each of `count` images in each round, and the sign of its strength.

    Both are `(num_ops, count)`: int64 indices into `OPERATIONS`, and bool, true for a negative strength.
    """
    operations = torch.randint(len(OPERATIONS), (num_ops, count), generator=generator)
    negated = torch.randint(2, (num_ops, count), generator=generator) == 1
    signed = torch.tensor([operation.signed for operation in OPERATIONS.values()])
    return operations, negated & signed[operations]


def _apply_operations(images: Tensor, operations: Tensor, negated: Tensor, magnitude: int) -> Tensor:
    """Apply to each image its own operation, an index into `OPERATIONS` and a sign, both on the CPU."""
    # Images are sorted by operation and sign. The order is computed on the CPU, so nothing waits for the device.
    kinds = 2 * operations + negated
    order = kinds.argsort(stable=True)
    sorted_from, sorted_to = to_device(torch.stack([order, order.argsort()]), images.device)
    counts = kinds.bincount(minlength=2 * len(OPERATIONS)).tolist()
    groups = iter(images.index_select(0, sorted_from).split(counts))
    results = [
        apply_operation(next(groups), operation, strength(operation, magnitude, negative))
        for operation in OPERATIONS.values()
        for negative in (False, True)
    ]
    return torch.cat(results).index_select(0, sorted_to)


@cache
def strength(operation: Operation, magnitude: int, negated: bool = False) -> float:
    """Return the strength of `operation` at a magnitude of 0 to 30."""
    # In float32 like torchvision, so that both agree bit for bit.
    absolute = float(torch.linspace(operation.weakest, operation.strongest, MAX_MAGNITUDE + 1)[magnitude])
    return -absolute if negated else absolute


def apply_operation(images: Tensor, operation: Operation, strength: float) -> Tensor:
    """Apply one operation at one strength to images `(N, H, W, 3)`."""
    if len(images) == 0:
        return images
    if not operation.moves_pixels:
        return operation.function(images.permute(0, 3, 1, 2), strength).permute(0, 2, 3, 1)
    sources = _sources(operation.function, strength, *images.shape[1:], images.device)
    black_first = F.pad(images.flatten(1), (1, 0))
    return black_first.gather(1, sources.expand(len(images), -1)).view(images.shape)


@cache
def _sources(
    function: Callable[[Tensor, float], Tensor],
    strength: float,
    height: int,
    width: int,
    channels: int,
    device: torch.device,
) -> Tensor:
    """Return the source of each value of the flattened result: its index in the flattened image from 1, or 0 for black.

    The operation is applied to an image of indices, on the CPU, so that rounding between two pixels is the same for all
    devices.
    """
    places = torch.arange(1.0, height * width * channels + 1).view(height, width, channels)
    moved = function(places.permute(2, 0, 1), strength).permute(1, 2, 0)
    return to_device(moved.flatten().long(), device)
