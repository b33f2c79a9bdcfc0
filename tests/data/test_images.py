"""Splits keep every class's share, and generators depend only on their keys."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cifar_lab.data.images import DataError, keyed_generator, stratified_split


def shuffled_labels(sizes: list[int]) -> Tensor:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=10).filter(sum), st.floats(0, 1))
@settings(max_examples=50, derandomize=True, database=None, deadline=None)
@example([20] * 10, 0.25)
@example([91, *[1] * 9], 0.5)
@example([7, 7], 1)
def test_a_split_is_complete_ascending_and_within_one_image_of_every_classs_share(
    sizes: list[int], part: float
) -> None:
    labels, count = shuffled_labels(sizes), round(part * sum(sizes))
    first, rest = stratified_split(labels, count, keyed_generator(count))
    shares = torch.tensor(sizes, dtype=torch.float64) * count / len(labels)
    # Off by less than one image, and exact where the shares are whole numbers.
    assert (labels[first].bincount(minlength=len(sizes)) - shares).abs().max() < 1
    assert len(first) == count and first.dtype == rest.dtype == torch.int64
    assert torch.cat([first, rest]).sort().values.tolist() == list(range(len(labels)))
    assert first.tolist() == sorted(first.tolist()) and rest.tolist() == sorted(rest.tolist())


def test_every_image_of_a_class_is_drawn_equally_often() -> None:
    drawn = torch.zeros(20)
    for key in range(1000):
        drawn[stratified_split(torch.arange(20) % 2, 4, keyed_generator(key))[0]] += 1
    # Binomial (1000, 1/5) has mean 200 and standard deviation 12.6; the bounds are five deviations away.
    assert drawn.min() > 137 and drawn.max() < 263


@pytest.mark.parametrize("count", [-1, 21])
def test_too_many_images_and_a_negative_key_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        keyed_generator(-1)
    with pytest.raises(DataError, match=rf"{count} .*\b20\b"):
        stratified_split(shuffled_labels([10, 10]), count, keyed_generator(0))


def draws(*key: int) -> tuple[int, ...]:
    return tuple(torch.randint(2**62, (4,), generator=keyed_generator(*key)).tolist())


def test_draws_depend_only_on_the_key_and_keep_the_global_random_state() -> None:
    state = torch.get_rng_state()
    first = draws(1, 2, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert draws(1, 2, 3) == first
    numbers = (0, 1, 2, 2**31, 2**32 - 1)
    keys = [key for length in range(1, 4) for key in itertools.product(numbers, repeat=length)]
    assert len({draws(*key) for key in keys}) == len(keys), "also of those that differ by trailing zeros"
