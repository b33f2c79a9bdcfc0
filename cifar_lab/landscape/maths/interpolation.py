"""Networks on the straight line between two: their loss and accuracy."""

import copy
from collections.abc import Callable, Collection, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cifar_lab.landscape.maths.functional import Weights

Batch = tuple[Tensor, Tensor]


def interpolated(start: Weights, end: Weights, share: float) -> dict[str, Tensor]:
    """The weights (1 - share) start + share end."""
    return {name: torch.lerp(value, end[name], share) for name, value in start.items()}


def with_weights(model: nn.Module, weights: Weights, batches: Collection[Batch]) -> nn.Module:
    """Copy a network with new weights and re-estimated BatchNorm statistics, in evaluation mode.

    Running statistics from training are wrong for different weights. They are re-estimated as plain averages over
    batches of training images, as by torch's `update_bn`.
    """
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **weights})
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout in front of a BatchNorm draws
        update_bn(batches, other)
    return other.eval()


@torch.no_grad()
def loss_and_accuracy(
    model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], batches: Iterable[Batch]
) -> tuple[float, float]:
    """The mean loss over images, and the accuracy from 0 to 1, on batches `(images, labels)`, in the model's mode."""
    loss, right, count = 0.0, 0, 0
    for images, labels in batches:
        logits = model(images)
        loss += float(criterion(logits, labels)) * len(labels)
        right += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return loss / count, right / count


def barrier(shares: np.ndarray, losses: np.ndarray) -> float:
    """The largest height of losses `(P,)` above the straight line between the first and the last (arXiv:1912.05671).

    `shares` `(P,)` rise from 0 to 1: the share of the way at each loss.
    """
    straight = losses[0] + shares * (losses[-1] - losses[0])
    return float(np.max(losses - straight))
