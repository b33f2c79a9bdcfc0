"""Accuracy measures and calibration of a network's predictions, compared with counts and formulas worked by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_lab.evaluate.measures import (
    accuracy,
    calibration,
    confusion_matrix,
    mean_loss,
    per_class,
    reliability,
    scaled,
    temperature,
)
from cifar_lab.losses import FocalLoss
from cifar_lab.trained import Answers


def answers(predicted: list[int], labels: list[int], classes: int = 3) -> Answers:
    return Answers(torch.eye(classes)[predicted] * 4, torch.tensor(labels))


def test_each_class_has_its_precision_recall_and_f1() -> None:
    found = answers([0, 0, 1, 1, 2], [0, 1, 1, 1, 0])
    first, second, third = per_class(found, ["a", "b", "c"])
    assert first == {"class": "a", "precision": 0.5, "recall": 0.5, "f1": 0.5, "images": 2}
    assert second["precision"] == 1
    assert second["recall"] == pytest.approx(2 / 3)
    assert second["f1"] == pytest.approx(0.8)
    assert (third["images"], third["recall"]) == (0, 0)
    assert confusion_matrix(found) == [[1, 0, 1], [1, 2, 0], [0, 0, 0]]
    assert accuracy(found)["acc"] == pytest.approx(3 / 5)
    assert "acc_top5" not in accuracy(found)
    of_ten = accuracy(Answers(torch.arange(10.0).repeat(4, 1), torch.tensor([9, 5, 4, 0])))
    assert (of_ten["acc"], of_ten["acc_top5"]) == (0.25, 0.5)


def test_the_loss_is_the_mean_over_images_for_any_batch_size() -> None:
    found = Answers(torch.randn(10, 3), torch.randint(0, 3, (10,)))
    loss = FocalLoss()
    assert mean_loss(found, loss, batch_size=3) == pytest.approx(float(loss(*found)), rel=1e-6)


def draw_logits(count: int = 4_000, classes: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draw labels from the softmax of random logits, and return the logits times `scale` with the labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def test_two_predictions_have_the_calibration_errors_worked_by_hand() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.7, 0.3]])
    measured = calibration(probabilities.log(), torch.tensor([0, 1]))
    # Two of fifteen bins are used, with one image each: |1 - 0.8| and |0 - 0.7|, each weighted by half.
    assert measured.ece == pytest.approx((0.2 + 0.7) / 2, abs=1e-6)
    assert measured.nll == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 2, rel=1e-6)
    assert measured.brier == pytest.approx((2 * 0.2**2 + 2 * 0.7**2) / 2, rel=1e-6)


def test_the_error_is_the_weighted_sum_over_bins() -> None:
    logits, labels = draw_logits(scale=3.0)
    bins = reliability(logits, labels)
    filled = bins.images > 0
    gaps = abs(bins.accuracy - bins.confidence)[filled] * bins.images[filled] / bins.images.sum()
    assert gaps.sum() == pytest.approx(calibration(logits, labels).ece, abs=1e-6)
    assert bins.images.sum() == len(labels)
    certain = reliability(torch.tensor([[1e9, 0.0]]), torch.tensor([0]))
    assert certain.images.tolist() == [0] * 14 + [1]


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = draw_logits(20_000, scale=scale)
    found = temperature(logits, labels)
    assert found == pytest.approx(scale, rel=0.05)
    losses = [float(F.cross_entropy(logits.double() / (found * change), labels)) for change in (0.98, 1.0, 1.02)]
    assert losses[1] < min(losses[0], losses[2])
    assert 0.01 <= temperature(torch.eye(3), torch.arange(3)) < 0.05  # the predictions are all correct


def test_scaling_is_fitted_on_held_out_images() -> None:
    logits, labels = draw_logits(100, scale=3.0)
    fitted = scaled(Answers(logits, labels), Answers(logits[:50], labels[:50]))
    assert fitted.temperature == temperature(logits[:50], labels[:50]) and "50" in fitted.fitted_on
    torch.testing.assert_close(fitted.logits, logits.double() / fitted.temperature)
