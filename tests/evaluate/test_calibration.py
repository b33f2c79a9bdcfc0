"""Calibration, against formulas worked by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_lab.evaluate.calibration import calibration, cross_fitted, reliability, temperature


def drawn(count: int = 4_000, classes: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits whose labels are drawn from their own softmax, then multiplied by `scale`."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def test_two_answers_have_the_errors_that_pencil_and_paper_give() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.7, 0.3]])
    measured = calibration(probabilities.log(), torch.tensor([0, 1]))
    # Two bins of fifteen, one image each: |1 - 0.8| and |0 - 0.7|, each with half of the images.
    assert measured.ece == pytest.approx((0.2 + 0.7) / 2, abs=1e-6)
    assert measured.nll == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 2, rel=1e-6)
    assert measured.brier == pytest.approx((2 * 0.2**2 + 2 * 0.7**2) / 2, rel=1e-6)


def test_the_bins_make_up_the_error() -> None:
    logits, labels = drawn(scale=3.0)
    bins = reliability(logits, labels)
    filled = bins.images > 0
    gaps = abs(bins.accuracy - bins.confidence)[filled] * bins.images[filled] / bins.images.sum()
    assert gaps.sum() == pytest.approx(calibration(logits, labels).ece, abs=1e-6)
    assert bins.images.sum() == len(labels)


def test_a_certain_answer_lies_in_the_last_bin() -> None:
    bins = reliability(torch.tensor([[1e9, 0.0]]), torch.tensor([0]))
    assert bins.images.tolist() == [0] * 14 + [1]


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = drawn(20_000, scale=scale)
    found = temperature(logits, labels)
    assert found == pytest.approx(scale, rel=0.05)
    losses = [float(F.cross_entropy(logits.double() / (found * change), labels)) for change in (0.98, 1.0, 1.02)]
    assert losses[1] < min(losses[0], losses[2])


def test_the_temperature_of_faultless_answers_is_bounded() -> None:
    assert 0.01 <= temperature(torch.eye(3), torch.arange(3)) < 0.05


def test_each_half_is_scaled_by_the_others_temperature() -> None:
    logits, labels = drawn(100, scale=3.0)
    scaled, (first, second) = cross_fitted(logits, labels)
    assert first == pytest.approx(temperature(logits[1::2], labels[1::2]))
    assert second == pytest.approx(temperature(logits[::2], labels[::2]))
    torch.testing.assert_close(scaled[::2], logits[::2].double() / first)
    changed = labels.clone()
    changed[0] = (changed[0] + 1) % 5
    torch.testing.assert_close(cross_fitted(logits, changed)[0][0], scaled[0])
