"""Accuracy, loss and calibration of a network's predictions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from cifar_lab.statistics.accuracies import wilson_interval
from cifar_lab.trained import Answers

TOP = 5
BINS = 15  # as in arXiv:1706.04599, table 1


class Calibration(NamedTuple):
    """Calibration of probabilities; lower is better for each measure."""

    ece: float  # expected calibration error with 15 bins of equal width (arXiv:1706.04599, equation 3), from 0 to 1
    nll: float  # negative log-likelihood in nats, averaged over images
    # Brier score (Brier 1950): squared distance of the probabilities from the one-hot label, summed over classes and
    # averaged over images, from 0 to 2
    brier: float


class Reliability(NamedTuple):
    """The bins of a reliability diagram."""

    confidence: np.ndarray  # mean confidence per bin, `(bins,)`; NaN for an empty bin
    accuracy: np.ndarray  # accuracy per bin, `(bins,)`; NaN for an empty bin
    images: np.ndarray  # number of images per bin, `(bins,)`


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Measure the calibration of `logits` `(N, C)` against int64 `labels` `(N,)`."""
    logits = logits.double()
    probabilities = logits.softmax(1)
    ece = multiclass_calibration_error(probabilities, labels, logits.shape[1], n_bins=BINS, norm="l1")
    squares = (probabilities - F.one_hot(labels, logits.shape[1])).square().sum(1).mean()
    return Calibration(float(ece), float(F.cross_entropy(logits, labels)), float(squares))


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """Compute confidence and accuracy of `logits` `(N, C)` for int64 `labels` `(N,)`, in 15 bins of equal width."""
    confidence, predicted = logits.double().softmax(1).max(1)
    place = torch.bucketize(confidence, torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1], right=True)
    count = torch.bincount(place, minlength=BINS).double()
    means = [
        torch.bincount(place, weights=values.double(), minlength=BINS) / count
        for values in (confidence, predicted == labels)
    ]
    return Reliability(means[0].numpy(), means[1].numpy(), count.numpy().astype(int))


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature that minimises the negative log-likelihood of `logits / temperature`.

    Temperature scaling as in arXiv:1706.04599, section 4.2.

    Args:
        logits: `(N, C)`, of images held out of training.
        labels: int64, `(N,)`.

    Returns:
        The temperature, bounded to 0.01 to 100: if all predictions are correct, the minimum is at 0.
    """
    logits = logits.double()

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), labels))

    # The loss is convex in the inverse temperature, so its minimum over the logarithm is unique too.
    minimum = minimize_scalar(nll, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(minimum.x))


class Scaled(NamedTuple):
    """Predictions after temperature scaling."""

    logits: Tensor  # divided by the temperature, `(N, C)`
    temperature: float  # fitted on held-out images
    fitted_on: str  # description of the held-out images
    measured: Calibration  # calibration after scaling


def accuracy(answers: Answers) -> dict[str, Any]:
    """Compute the accuracy, from 0 to 1, with its 95 % Wilson interval; with more than 5 classes, top-5 too."""
    logits, labels = answers
    classes, count = logits.shape[1], len(labels)
    acc = float(multiclass_accuracy(logits, labels, classes, average="micro"))
    low, high = wilson_interval(round(acc * count), count)
    result = {"acc": acc, "acc_low": low, "acc_high": high}
    if classes > TOP:
        result["acc_top5"] = float(multiclass_accuracy(logits, labels, classes, average="micro", top_k=TOP))
    return result


def mean_loss(answers: Answers, criterion: Callable[[Tensor, Tensor], Tensor], batch_size: int = 1_000) -> float:
    """Average the loss over images; `criterion` returns the mean over a batch."""
    pairs = zip(answers.logits.split(batch_size), answers.labels.split(batch_size), strict=True)
    sums = [float(criterion(logits, labels)) * len(labels) for logits, labels in pairs]
    return sum(sums) / len(answers.labels)


def per_class(answers: Answers, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Compute precision, recall and F1 of each class, from 0 to 1, with its number of images."""
    logits, labels = answers
    count = logits.shape[1]
    measures = [
        measure(logits, labels, count, average="none").tolist()
        for measure in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    ]
    sizes = torch.bincount(labels, minlength=count).tolist()
    return [
        {"class": name, "precision": precision, "recall": recall, "f1": f1, "images": size}
        for name, precision, recall, f1, size in zip(classes, *measures, sizes, strict=True)
    ]


def confusion_matrix(answers: Answers) -> list[list[int]]:
    """Count images by true class (rows) and predicted class (columns)."""
    return multiclass_confusion_matrix(*answers, answers.logits.shape[1]).tolist()


def scaled(answers: Answers, held_out: Answers) -> Scaled:
    """Scale the logits of `answers` by the temperature fitted on `held_out`, the predictions on different images."""
    fitted = temperature(*held_out)
    logits = answers.logits.double() / fitted
    fitted_on = f"{len(held_out.labels):,} validation images"
    return Scaled(logits, fitted, fitted_on, calibration(logits, answers.labels))
