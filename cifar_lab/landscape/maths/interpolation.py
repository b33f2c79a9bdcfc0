"""Linear interpolation between two networks: loss and accuracy along the line."""

import copy
from collections.abc import Callable, Collection, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cifar_lab.landscape.maths.functional import Weights

Batch = tuple[Tensor, Tensor]


def interpolated(start: Weights, end: Weights, share: float) -> dict[str, Tensor]:
    """Return `(1 - share) * start + share * end`."""
    return {name: torch.lerp(value, end[name], share) for name, value in start.items()}


def with_weights(model: nn.Module, weights: Weights, batches: Collection[Batch]) -> nn.Module:
    """Return a copy of a network with other weights and new BatchNorm statistics, in evaluation mode.

    Running statistics of a training are wrong for other weights. torch's `update_bn` estimates them again as averages
    over the batches of training images with equal weight per batch.
    """
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **weights})
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout before a BatchNorm draws random numbers
        update_bn(batches, other)
    return other.eval()


@torch.no_grad()
def loss_and_accuracy(
    model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], batches: Iterable[Batch]
) -> tuple[float, float]:
    """Return the mean loss over images and the accuracy, from 0 to 1, in the model's current mode."""
    loss, right, count = 0.0, 0, 0
    for images, labels in batches:
        logits = model(images)
        loss += float(criterion(logits, labels)) * len(labels)
        right += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return loss / count, right / count


def barrier(shares: np.ndarray, losses: np.ndarray) -> float:
    """Return the largest height of the losses above the line from the first to the last (arXiv:1912.05671).

    Args:
        shares: Interpolation fractions `(P,)`, rising from 0 to 1.
        losses: Losses `(P,)` at these fractions.
    """
    straight = losses[0] + shares * (losses[-1] - losses[0])
    return float(np.max(losses - straight))
