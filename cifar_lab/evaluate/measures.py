"""Accuracy, loss and calibration of a network's answers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from cifar_lab.evaluate.calibration import Calibration, calibration, cross_fitted, temperature
from cifar_lab.statistics.accuracies import wilson_interval
from cifar_lab.trained import Answers

TOP = 5


class Scaled(NamedTuple):
    """Answers after temperature scaling.

    Attributes:
        logits: Divided by the temperature, `(N, C)`.
        temperatures: One, or that of each half.
        fitted_on: A description of the images.
        measured: Their calibration.
    """

    logits: Tensor
    temperatures: list[float]
    fitted_on: str
    measured: Calibration


def accuracy(answers: Answers) -> dict[str, Any]:
    """The share of right answers, from 0 to 1, with its 95 % Wilson interval; and the top-5 accuracy."""
    logits, labels = answers
    classes, count = logits.shape[1], len(labels)
    acc = float(multiclass_accuracy(logits, labels, classes, average="micro"))
    low, high = wilson_interval(round(acc * count), count)
    result = {"acc": acc, "acc_low": low, "acc_high": high}
    if classes > TOP:
        result["acc_top5"] = float(multiclass_accuracy(logits, labels, classes, average="micro", top_k=TOP))
    return result


def mean_loss(answers: Answers, criterion: Callable[[Tensor, Tensor], Tensor], batch_size: int = 1_000) -> float:
    """The mean over images of the loss `criterion`, which returns the mean over a batch."""
    pairs = zip(answers.logits.split(batch_size), answers.labels.split(batch_size), strict=True)
    sums = [float(criterion(logits, labels)) * len(labels) for logits, labels in pairs]
    return sum(sums) / len(answers.labels)


def per_class(answers: Answers, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, from 0 to 1, and how many images it has."""
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
    """Counts of images, by true class (rows) and predicted class."""
    return multiclass_confusion_matrix(*answers, answers.logits.shape[1]).tolist()


def scaled(answers: Answers, held_out: Answers | None) -> Scaled:
    """Scale answers by the temperature fitted on `held_out`, or without these, each half by the other's temperature."""
    if held_out is None:
        logits, temperatures = cross_fitted(*answers)
        fitted_on = "the other half of these images"
    else:
        temperatures = [temperature(*held_out)]
        logits = answers.logits.double() / temperatures[0]
        fitted_on = f"{len(held_out.labels):,} validation images"
    return Scaled(logits, temperatures, fitted_on, calibration(logits, answers.labels))
