"""Cutout blackens one square in every image, at a place drawn per image, after crop and flip."""

import functools

import pytest
import scipy.stats
import torch
from torch import Tensor

from cifar_lab.data.augment import cut_squares, flip_crop
from cifar_lab.data.cutout import cutout
from tests.data import pictures
from tests.data.pictures import seeded

random_images = functools.partial(pictures.random_images, darkest=1)  # so every zero pixel was cut out


def as_in_the_paper(image: Tensor, row: int, column: int, size: int) -> Tensor:
    """Cut the clipped square of the authors' code; sizes are even, with half a side on each side of the centre."""
    result, top, left = image.clone(), row - size // 2, column - size // 2
    result[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    return result


PLACES = [(16, 16), (0, 0), (31, 31), (0, 31), (31, 0), (3, 12), (12, 3), (8, 24), (7, 25)]


@pytest.mark.parametrize(
    ("size", "shape", "places"), [*((size, (32, 32), PLACES) for size in (1, 2, 5, 8, 16, 64)), (4, (6, 9), [(1, 7)])]
)
def test_squares_at_every_kind_of_place_equal_the_papers_code(
    size: int, shape: tuple[int, int], places: list[tuple[int, int]]
) -> None:
    images = random_images(len(places), *shape)
    expected = [as_in_the_paper(image, *place, size) for image, place in zip(images, places, strict=True)]
    rows, columns = torch.tensor(places).T
    assert torch.equal(cut_squares(images, rows, columns, size), torch.stack(expected))


def test_pixels_outside_the_square_equal_flip_crops() -> None:
    images, generator = random_images(64), seeded(3)
    cropped = flip_crop(images, generator)
    rows, columns = (torch.randint(32, (64,), generator=generator) for _ in range(2))
    draws = zip(cropped, rows.tolist(), columns.tolist(), strict=True)
    expected = torch.stack([as_in_the_paper(image, row, column, 16) for image, row, column in draws])
    assert torch.equal(cutout(images, seeded(3)), expected)


def test_centres_are_uniform_over_the_image_and_independent_of_their_neighbours() -> None:
    images = torch.ones((20_000, 6, 6, 3), dtype=torch.uint8)
    centres = (cutout(images, seeded(), size=1, padding=0)[..., 0] == 0).flatten(1).long().argmax(1)
    assert scipy.stats.chisquare(centres.bincount(minlength=36).numpy()).pvalue > 1e-4
    pairs = (centres[::2] * 36 + centres[1::2]).bincount(minlength=36**2)
    assert scipy.stats.chisquare(pairs.numpy()).pvalue > 1e-4


def test_size_zero_equals_flip_crop_and_a_negative_size_is_refused() -> None:
    images = random_images(16)
    assert torch.equal(cutout(images, seeded(), size=0, padding=2), flip_crop(images, seeded(), padding=2))
    with pytest.raises(ValueError, match=r"size .*-1$"):
        cutout(images, seeded(), size=-1)
