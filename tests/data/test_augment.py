"""Batched augmentation equals torchvision's on each image, at offsets drawn per image."""

import itertools
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from cifar_lab.data.augment import AlternatingFlip, Visit, adjust, color_jitter, crop, flip, flip_crop, identity
from cifar_lab.data.cutout import cutout
from cifar_lab.data.mixing import CutMix, MixUp
from cifar_lab.data.randaugment import randaugment
from tests.data.pictures import random_images, seeded


def position_images(count: int, side: int = 12) -> Tensor:
    """Return images whose red is the row and whose green is the column, counted from 1 because padding is 0."""
    place = torch.arange(1, side + 1, dtype=torch.uint8)
    image = torch.stack([place[:, None].expand(side, side), place.expand(side, side), torch.full((side, side), 255)], 2)
    return image.to(torch.uint8).repeat(count, 1, 1, 1)


def read_positions(images: Tensor, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the offsets at which the augmented position images were cut, and whether each was mirrored."""
    middle = images.shape[1] // 2
    red, green = images[:, middle, middle, :2].long().unbind(1)
    flipped = images[:, middle, middle + 1, 1].long() < green
    column = torch.where(flipped, images.shape[2] - 1 - middle, middle)
    return red - 1 - middle + padding, green - 1 - column + padding, flipped


def by_torchvision(
    images: Tensor, tops: Tensor, lefts: Tensor, flipped: Tensor, padding: int, mode: str = "constant"
) -> Tensor:
    """Pad, crop and mirror the images one at a time."""
    height, width = images.shape[1:3]
    results = []
    for image, top, left, mirror in zip(images, tops.tolist(), lefts.tolist(), flipped.tolist(), strict=True):
        padded = tvf.pad(image.permute(2, 0, 1).int(), [padding], padding_mode=mode).to(image.dtype)
        result = tvf.crop(padded, top, left, height, width)
        results.append((tvf.horizontal_flip(result) if mirror else result).permute(1, 2, 0))
    return torch.stack(results)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("padding", [0, 1, 4, 5])
@pytest.mark.parametrize("size", [(32, 32), (6, 9)])
def test_crop_at_every_offset_equals_torchvision(padding: int, size: tuple[int, int], mode: str) -> None:
    offsets = range(2 * padding + 1)
    tops, lefts = torch.tensor(list(itertools.product(offsets, offsets))).T
    images = random_images(len(tops), *size)
    expected = by_torchvision(images, tops, lefts, torch.zeros(len(tops), dtype=torch.bool), padding, mode)
    planes = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for layout in (images, planes):
        cropped = crop(layout, tops, lefts, padding, reflect=mode == "reflect")
        assert cropped.dtype == torch.uint8 and torch.equal(cropped, expected)


def test_flip_mirrors_only_the_chosen_images() -> None:
    images = random_images(6, 5, 8)
    flipped = torch.tensor([True, False, False, True, True, False])
    zeros = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(flip(images, flipped), by_torchvision(images, zeros, zeros, flipped, padding=0))


@pytest.mark.parametrize("padding", [0, 1, 2, 4])
def test_flip_crop_equals_torchvision_at_the_drawn_offsets(padding: int) -> None:
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


def test_a_reflection_wider_than_the_image_is_refused() -> None:
    zeros = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="padding=6 "):
        crop(random_images(1, 6, 9), zeros, zeros, 6, reflect=True)


def visit(epoch: int, indices: Tensor, seed: int = 0, count: int = 1000) -> Visit:
    return Visit(seed, epoch, indices, count, torch.full_like(indices, epoch))


def test_alternating_flips_mirror_each_image_once_in_two_epochs_by_seed_place_and_epoch() -> None:
    augment, places, indices = AlternatingFlip(padding=0), position_images(1000), torch.arange(1000)
    flipped = [read_positions(augment(places, seeded(n), visit(n, indices)), 0)[2] for n in range(4)]
    assert torch.equal(flipped[0], ~flipped[1]) and torch.equal(flipped[0], flipped[2])
    assert torch.equal(flipped[1], flipped[3])
    assert scipy.stats.binomtest(int(flipped[0].sum()), 1000).pvalue > 1e-4
    few = torch.tensor([700, 3, 41])
    assert torch.equal(read_positions(augment(places[:3], seeded(9), visit(2, few)), 0)[2], flipped[0][few])
    other = read_positions(augment(places, seeded(0), visit(0, indices, seed=1)), 0)[2]
    assert 400 < (other != flipped[0]).sum() < 600


def test_alternating_flips_translate_by_reflection_at_uniform_offsets() -> None:
    images, indices = random_images(1000, 12, 12), torch.arange(1000)
    places = AlternatingFlip(reflect=False)(position_images(1000), seeded(3), visit(5, indices))
    tops, lefts, flipped = read_positions(places, 2)
    expected = by_torchvision(images, tops, lefts, flipped, 2, "reflect")
    assert torch.equal(AlternatingFlip()(images, seeded(3), visit(5, indices)), expected)
    assert scipy.stats.chisquare((tops * 5 + lefts).bincount(minlength=25).numpy()).pvalue > 1e-4


def test_alternating_flips_with_cutout_blacken_a_square_of_the_same_images() -> None:
    images, indices = random_images(200, darkest=1), torch.arange(200)
    without = AlternatingFlip()(images, seeded(3), visit(5, indices))
    cut = AlternatingFlip(cutout=12)(images, seeded(3), visit(5, indices))
    black = (cut == 0).all(3)
    assert torch.equal(cut, torch.where(black[..., None], 0, without))
    areas = black.sum((1, 2))
    assert areas.max() == 144 and 36 <= areas.min() < 144  # squares are clipped at the edges


def test_brightness_and_contrast_equal_torchvisions_on_each_image() -> None:
    images = random_images(60)
    brightness, contrast = torch.rand(2, 60, generator=seeded(1), dtype=torch.float64) * 2
    expected = torch.stack(
        [
            tvf.adjust_contrast(tvf.adjust_brightness(image, bright), stretched)
            for image, bright, stretched in zip(
                images.permute(0, 3, 1, 2), brightness.tolist(), contrast.tolist(), strict=True
            )
        ]
    ).permute(0, 2, 3, 1)
    difference = (adjust(images, brightness, contrast).int() - expected.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-4  # a fused multiply-add rounds only once
    ones = torch.ones(60, dtype=torch.float64)
    assert torch.equal(adjust(images, ones, ones), images)


def test_jitter_draws_factors_of_each_image_uniformly_within_its_strength() -> None:
    grey = torch.full((4000, 8, 8, 3), 100, dtype=torch.uint8)
    levels = color_jitter(grey, seeded(0), brightness=0.5, contrast=0.7, padding=0)[:, 0, 0, 0].double()
    # A grey image has no contrast, so its level is 100 times the brightness factor, rounded down.
    assert scipy.stats.kstest((levels + 0.5) / 100, "uniform", (0.5, 1.0)).pvalue > 1e-4
    edge = torch.full((4000, 2, 2, 3), 50, dtype=torch.uint8)
    edge[:, :, 1] = 200
    spread = color_jitter(edge, seeded(0), brightness=0.0, contrast=0.2, padding=0).double()
    widths = (spread.amax((1, 2, 3)) - spread.amin((1, 2, 3))) / 150
    assert scipy.stats.kstest(widths, "uniform", (0.8, 0.4)).pvalue > 1e-6
    assert torch.equal(color_jitter(grey, seeded(3), 0.0, 0.0), flip_crop(grey, seeded(3)))


def alternating(images: Tensor, generator: torch.Generator) -> Tensor:
    return AlternatingFlip(contrast=0.1)(images, generator, visit(1, torch.arange(len(images))))


every_augmentation = pytest.mark.parametrize(
    "augment", [flip_crop, color_jitter, alternating, cutout, randaugment, MixUp(), CutMix()]
)


@every_augmentation
def test_an_augmentation_depends_only_on_its_generator_and_changes_nothing_else(
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
def test_an_augmentation_reads_no_value_of_the_images(augment: Callable[..., Tensor], count: int) -> None:
    # Meta tensors have no values: reading one, or a shape that depends on one, is an error.
    images = random_images(count).to("meta")
    augmented = augment(images, seeded(0))
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)


def test_identity_changes_nothing_and_draws_nothing() -> None:
    images, generator = random_images(4), seeded(0)
    state = generator.get_state()
    assert torch.equal(identity(images, generator), random_images(4))
    assert torch.equal(generator.get_state(), state)
