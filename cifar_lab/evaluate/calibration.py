"""Whether a network is right as often as it says that it is."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15  # as arXiv:1706.04599, table 1, has them
_FOLDS = 2


class Calibration(NamedTuple):
    """How well probabilities fit what happens; each is better the smaller.

    Attributes:
        ece: Expected calibration error with 15 bins of equal width (arXiv:1706.04599, equation 3), from 0 to 1.
        nll: Negative log-likelihood, nats, the mean over images.
        brier: Brier score (Brier 1950): the squared distance of the probabilities from the true class, summed over the
            classes and averaged over images, from 0 to 2.
    """

    ece: float
    nll: float
    brier: float


class Reliability(NamedTuple):
    """The bins of a reliability diagram.

    Attributes:
        confidence: Mean confidence in each bin, `(bins,)`; NaN where it is empty.
        accuracy: The share of right answers, `(bins,)`; NaN where it is empty.
        images: How many, `(bins,)`.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Measure the calibration of `logits` `(N, C)` against int64 `labels` `(N,)`."""
    logits = logits.double()
    probabilities = logits.softmax(1)
    ece = multiclass_calibration_error(probabilities, labels, logits.shape[1], n_bins=BINS, norm="l1")
    squares = (probabilities - F.one_hot(labels, logits.shape[1])).square().sum(1).mean()
    return Calibration(float(ece), float(F.cross_entropy(logits, labels)), float(squares))


def reliability(logits: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Confidence and accuracy in bins of equal width.

    Args:
        logits: `(N, C)`.
        labels: int64, `(N,)`.
        bins: How many.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1], right=True)
    count = torch.bincount(place, minlength=bins).double()
    means = [
        torch.bincount(place, weights=values.double(), minlength=bins) / count
        for values in (confidence, predicted == labels)
    ]
    return Reliability(means[0].numpy(), means[1].numpy(), count.numpy().astype(int))


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature by which to divide logits for the least negative log-likelihood (arXiv:1706.04599, section 4.2).

    Args:
        logits: `(N, C)`, of images that the network was not trained on.
        labels: int64, `(N,)`.

    Returns:
        From 0.01 to 100: where every answer is right no temperature is small enough.
    """
    logits = logits.double()

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), labels))

    # In the inverse temperature it is convex, and so it has one minimum in its logarithm too.
    found = minimize_scalar(nll, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def cross_fitted(logits: Tensor, labels: Tensor) -> tuple[Tensor, list[float]]:
    """Scale each half of the images by the temperature that was fitted on the other half.

    For networks of whose training nothing was held out: no image's probability has seen its own label.

    Args:
        logits: `(N, C)`, N at least 2.
        labels: int64, `(N,)`.

    Returns:
        The scaled logits, and the temperature of each half.
    """
    scaled, temperatures = logits.double().clone(), []
    fold = torch.arange(len(labels)) % _FOLDS
    for number in range(_FOLDS):
        fitted = temperature(logits[fold != number], labels[fold != number])
        scaled[fold == number] /= fitted
        temperatures.append(fitted)
    return scaled, temperatures
