"""The synthetic images are reproducible, in CIFAR-10's format, and hard for a linear model but not for the CNN."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cifar_lab.data.images import NUM_CLASSES, LabelledImages
from cifar_lab.data.synthetic import CLASSES, generate
from tests.conftest import Outcome


def test_synthetic_images_depend_only_on_the_arguments_and_keep_the_global_random_state() -> None:
    torch.manual_seed(1)
    first = generate(50, 30, seed=7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    for one, other in zip(first, generate(50, 30, seed=7), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first[0].images, generate(50, 30, seed=8)[0].images)


@pytest.mark.parametrize(("num_train", "num_test"), [(20, 7), (1, 1), (7, 1003)])
def test_sets_have_the_promised_sizes_format_and_balance(num_train: int, num_test: int) -> None:
    for data, count in zip(generate(num_train, num_test), (num_train, num_test), strict=True):
        assert data.images.shape == (count, 32, 32, 3) and data.images.dtype == torch.uint8
        assert data.labels.shape == (count,) and data.labels.dtype == torch.int64
        sizes = data.labels.bincount(minlength=NUM_CLASSES)
        assert len(sizes) == NUM_CLASSES == len(CLASSES)
        assert sizes.max() - sizes.min() <= 1


def test_train_and_test_are_different_draws_of_one_distribution_that_does_not_saturate() -> None:
    train, test = generate(500, 200)
    distinct = torch.cat([train.images, test.images]).flatten(1)[:, :96].unique(dim=0)
    assert len(distinct) == 700
    assert train.images.float().mean() == pytest.approx(test.images.float().mean().item(), abs=8)
    assert not torch.equal(train.labels[:200], test.labels)
    # Labels are shuffled.
    assert (train.labels[1:] == train.labels[:-1]).float().mean() == pytest.approx(1 / NUM_CLASSES, abs=0.06)
    assert 110 < train.images.float().mean() < 145 and 40 < train.images.float().std() < 80
    assert ((train.images == 0) | (train.images == 255)).float().mean() < 0.05


@pytest.mark.parametrize(("num_train", "num_test", "seed"), [(0, 10, 0), (10, 0, 0), (-5, 10, 0), (10, 10, -1)])
def test_no_images_or_a_negative_seed_is_refused(num_train: int, num_test: int, seed: int) -> None:
    with pytest.raises(ValueError, match=rf"num_train={num_train} .*num_test={num_test}\b|seed=-1"):
        generate(num_train, num_test, seed)


def test_a_linear_model_on_the_pixels_stays_below_half() -> None:
    train, test = (LabelledImages(data.images.flatten(1) / 255 - 0.5, data.labels) for data in generate(1000, 500))
    targets = nn.functional.one_hot(train.labels, NUM_CLASSES).float() - 1 / NUM_CLASSES
    # Ridge regression onto the labels in the dual form, a system of 1,000 equations instead of 3,072.
    gram = train.images @ train.images.T
    weights = train.images.T @ torch.linalg.solve(gram + 30 * torch.eye(len(gram)), targets)
    is_right = [(data.images @ weights).argmax(1) == data.labels for data in (train, test)]
    assert is_right[0].float().mean() > 0.5 > is_right[1].float().mean()


@pytest.mark.slow
def test_the_cnn_passes_85_percent_within_three_epochs(lab: Callable[..., Outcome]) -> None:
    sizes = ("data=synthetic", "data.num_train=10000", "data.num_test=2000", "protocol=report")
    (run,) = lab(*sizes, "epochs=3", "trainer=cpu", "logger=none").runs
    assert run.result()["test/acc"] > 0.85
