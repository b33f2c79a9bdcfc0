"""Batched augmentation does to every image what torchvision does to one, at offsets drawn for each image."""

import itertools
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from cifar_lab.data.augment import crop, flip, flip_crop, identity
from cifar_lab.data.cutout import cutout
from cifar_lab.data.mixing import CutMix, MixUp
from cifar_lab.data.randaugment import randaugment
from tests.data.pictures import random_images, seeded


def position_images(count: int, side: int = 12) -> Tensor:
    """Images whose red is the row and whose green is the column, counted from 1 because padding is 0."""
    place = torch.arange(1, side + 1, dtype=torch.uint8)
    image = torch.stack([place[:, None].expand(side, side), place.expand(side, side), torch.full((side, side), 255)], 2)
    return image.to(torch.uint8).repeat(count, 1, 1, 1)


def read_positions(images: Tensor, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each of the augmented position images was cut, and whether it was mirrored."""
    middle = images.shape[1] // 2
    red, green = images[:, middle, middle, :2].long().unbind(1)
    flipped = images[:, middle, middle + 1, 1].long() < green
    column = torch.where(flipped, images.shape[2] - 1 - middle, middle)
    return red - 1 - middle + padding, green - 1 - column + padding, flipped


def by_torchvision(images: Tensor, tops: Tensor, lefts: Tensor, flipped: Tensor, padding: int) -> Tensor:
    """Pad, cut and mirror the images one at a time."""
    height, width = images.shape[1:3]
    results = []
    for image, top, left, mirror in zip(images, tops.tolist(), lefts.tolist(), flipped.tolist(), strict=True):
        result = tvf.crop(tvf.pad(image.permute(2, 0, 1), [padding]), top, left, height, width)
        results.append((tvf.horizontal_flip(result) if mirror else result).permute(1, 2, 0))
    return torch.stack(results)


@pytest.mark.parametrize("padding", [0, 1, 4, 5])
@pytest.mark.parametrize("size", [(32, 32), (6, 9)])
def test_crop_at_every_offset_equals_torchvision(padding: int, size: tuple[int, int]) -> None:
    offsets = range(2 * padding + 1)
    tops, lefts = torch.tensor(list(itertools.product(offsets, offsets))).T
    images = random_images(len(tops), *size)
    expected = by_torchvision(images, tops, lefts, torch.zeros(len(tops), dtype=torch.bool), padding)
    planes = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for layout in (images, planes):
        cropped = crop(layout, tops, lefts, padding)
        assert cropped.dtype == torch.uint8 and torch.equal(cropped, expected)


def test_flip_mirrors_the_chosen_images_and_no_other() -> None:
    images = random_images(6, 5, 8)
    flipped = torch.tensor([True, False, False, True, True, False])
    zeros = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(flip(images, flipped), by_torchvision(images, zeros, zeros, flipped, padding=0))


@pytest.mark.parametrize("padding", [0, 1, 2, 4])
def test_flip_crop_equals_torchvision_at_the_offsets_that_were_drawn(padding: int) -> None:
    places, images = position_images(200), random_images(200, 12, 12)
    positions = read_positions(flip_crop(places, seeded(3), padding), padding)
    augmented = flip_crop(images, seeded(3), padding)
    assert torch.equal(augmented, by_torchvision(images, *positions, padding))
    tops, lefts, flipped = positions
    assert set(tops.tolist()) == set(lefts.tolist()) == set(range(2 * padding + 1))
    assert set(flipped.tolist()) == {False, True}


def test_flip_crop_draws_offsets_and_flips_uniformly_and_independently() -> None:
    tops, lefts, flipped = read_positions(flip_crop(position_images(20_000), seeded(0)), 4)
    counts = ((tops * 9 + lefts) * 2 + flipped).bincount(minlength=9 * 9 * 2)
    assert len(counts) == 9 * 9 * 2
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-4
    for quantity, levels in ((tops, 9), (lefts, 9), (flipped.long(), 2)):
        neighbours = (quantity[::2] * levels + quantity[1::2]).bincount(minlength=levels**2)
        assert scipy.stats.chisquare(neighbours.numpy()).pvalue > 1e-4


every_augmentation = pytest.mark.parametrize("augment", [flip_crop, cutout, randaugment, MixUp(), CutMix()])


@every_augmentation
def test_an_augmentation_depends_on_its_generator_alone_and_changes_nothing_else(
    augment: Callable[[Tensor, torch.Generator], Tensor],
) -> None:
    images = random_images(32)
    torch.manual_seed(1)
    first = augment(images, seeded(7))
    torch.manual_seed(2)
    state, generator = torch.get_rng_state(), seeded(7)
    assert torch.equal(augment(images, generator), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augment(images, generator), first)
    first.zero_()
    assert torch.equal(images, random_images(32))


@every_augmentation
@pytest.mark.parametrize("count", [1, 128])
def test_no_value_of_the_images_is_waited_for(augment: Callable[..., Tensor], count: int) -> None:
    # Tensors without values: reading one, or a shape that depends on one, is an error.
    images = random_images(count).to("meta")
    augmented = augment(images, seeded(0))
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)


def test_identity_changes_nothing_and_draws_nothing() -> None:
    images, generator = random_images(4), seeded(0)
    state = generator.get_state()
    assert torch.equal(identity(images, generator), random_images(4))
    assert torch.equal(generator.get_state(), state)
