"""Mixed batches against the papers' formulas, with weights read from the labels."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.config.build import build
from cifar_lab.data.augment import flip_crop
from cifar_lab.data.images import LabelledImages, keyed_generator
from cifar_lab.data.loader import BatchLoader, normalise
from cifar_lab.data.mixing import CutMix, MixUp
from cifar_lab.machine import hardware
from cifar_lab.runs import Run
from cifar_lab.train.assembly import make_classifier
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.fitting import fit_and_test
from cifar_lab.train.metrics import SplitMetrics
from tests.conftest import TINY, Compose
from tests.data.pictures import random_images, seeded

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
COUNT = 6
both = pytest.mark.parametrize("kind", [MixUp, CutMix])


def mixed_batch(kind: type[MixUp], seed: int, alpha: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch's images and labels, with each image in its own class, and the same images unmixed."""
    data = LabelledImages(random_images(COUNT), torch.arange(COUNT))
    loader = BatchLoader(data, COUNT, MEAN, STD, kind(alpha), seed=seed, num_classes=COUNT)
    cropped = flip_crop(data.images, keyed_generator(1, seed, 0, 0))
    ((images, labels),) = loader
    return images, labels, normalise(cropped, torch.tensor(MEAN), torch.tensor(STD))


@pytest.mark.parametrize("seed", range(4))
@both
def test_mixup_averages_each_image_and_the_one_before_with_one_weight_per_batch(kind: type[MixUp], seed: int) -> None:
    images, labels, plain = mixed_batch(kind, seed)
    weight, own = labels[0, 0], torch.eye(COUNT)
    torch.testing.assert_close(labels, weight * own + (1 - weight) * own.roll(1, 0))
    assert images.shape == (COUNT, 3, 32, 32) and images.is_contiguous(memory_format=torch.channels_last)
    if kind is MixUp:
        torch.testing.assert_close(images, weight * plain + (1 - weight) * plain.roll(1, 0))


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_replaces_a_rectangle_whose_area_weights_the_labels(seed: int) -> None:
    images, labels, plain = mixed_batch(CutMix, seed)
    other = plain.roll(1, 0)
    replaced = (images != plain).any(1).any(0)
    rows, columns = replaced.any(1).nonzero().flatten(), replaced.any(0).nonzero().flatten()
    area = len(rows) * len(columns)
    assert area == (0 if not area else (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
    inside = torch.zeros_like(replaced)
    inside[rows[:, None], columns] = True
    assert torch.equal(images, torch.where(inside, other, plain))
    assert labels[0, 0].item() == pytest.approx(1 - area / 32**2)


@both
def test_weights_follow_the_beta_distribution_and_change_from_batch_to_batch(kind: type[MixUp]) -> None:
    weights = {
        alpha: torch.stack([mixed_batch(kind, seed, alpha)[1][0, 0] for seed in range(60)]) for alpha in (0.1, 20.0)
    }
    assert len(weights[20.0].unique()) > 20
    # Beta(alpha, alpha) has variance 1 / (8 alpha + 4); clipping at the edges brings the variances of areas closer.
    assert weights[0.1].var() > 2 * weights[20.0].var()


@both
def test_a_mix_depends_only_on_its_generator_and_keeps_the_global_random_state(kind: type[MixUp]) -> None:
    images, labels, state = torch.rand(COUNT, 3, 8, 8), torch.arange(COUNT), torch.get_rng_state()
    generator = seeded(7)
    first = kind().mix(images, labels, COUNT, generator)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again = kind().mix(images, labels, COUNT, seeded(7))
    assert torch.equal(again[0], first[0]) and torch.equal(again[1], first[1])
    assert not torch.equal(kind().mix(images, labels, COUNT, generator)[1], first[1])


@both
def test_alpha_must_be_positive(kind: type[MixUp]) -> None:
    with pytest.raises(ValueError, match="alpha=0"):
        kind(0)


def test_accuracy_on_mixed_labels_counts_the_more_probable_class() -> None:
    metrics = SplitMetrics(3)
    logits = torch.tensor([[5.0, 1, 0], [5, 1, 0], [0, 1, 5]])
    labels = torch.tensor([[0.6, 0.4, 0], [0.4, 0.6, 0], [0, 0.3, 0.7]])
    metrics.update(logits, labels, loss=nn.functional.cross_entropy(logits, labels))
    assert metrics.compute("train")["train/acc"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("loss", ["ce", "focal", "mse", "label_smoothing"])
def test_every_loss_trains_on_mixed_labels(composed: Compose, tmp_path: Path, loss: str) -> None:
    config = composed(*TINY, "augment=cutmix", f"loss={loss}", "epochs=1", "trainer.enable_progress_bar=false")
    result = fit_and_test(config, Attempt(Run(tmp_path)))
    assert 0 <= result["val/acc"] <= 1


def test_a_loss_without_support_for_probabilities_is_refused_in_one_line(composed: Compose) -> None:
    config = composed(*TINY, "augment=mixup", "loss._target_=torch.nn.MultiMarginLoss")
    native = hardware.choose("cpu", "32-true", "contiguous")
    with pytest.raises(ValueError, match=r"^loss\._target_=torch\.nn\.MultiMarginLoss: .*MixUp[^\n]*$"):
        make_classifier(config, build(config.data), native)
    config.data.augment = None
    make_classifier(config, build(config.data), native)
