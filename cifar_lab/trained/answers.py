"""What a network answers to a split's images."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from cifar_lab.trained.network import Trained


class Answers(NamedTuple):
    """A network's answers.

    Attributes:
        logits: float32 `(N, C)`, on the CPU.
        labels: int64 `(N,)`, the true classes.
    """

    logits: Tensor
    labels: Tensor


def answer(trained: Trained, batches: Iterable[tuple[Tensor, Tensor]], *, flip: bool = False) -> Answers:
    """Answer batches, one after the other.

    Args:
        trained: The network.
        batches: Normalised images `(N, 3, 32, 32)` and their labels.
        flip: Take the mean of the logits of an image and of its mirror image.
    """
    logits, labels = [], []
    for images, of_batch in batches:
        given = trained.logits(images)
        if flip:
            given = (given + trained.logits(images.flip(3))) / 2
        logits.append(given.cpu())
        labels.append(of_batch.cpu())
    return Answers(torch.cat(logits), torch.cat(labels))


def confident_mistakes(given: Answers, count: int) -> Tensor:
    """The int64 indices of the wrong answers with the highest probability, at most `count`, the surest first."""
    probability, predicted = given.logits.double().softmax(1).max(1)
    wrong = (predicted != given.labels).nonzero()[:, 0]
    return wrong[probability[wrong].argsort(descending=True, stable=True)][:count]
