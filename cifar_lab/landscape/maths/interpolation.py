"""Networks on the straight line between two: their loss and accuracy."""

import copy
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cifar_lab.landscape.maths.functional import Weights

Batch = tuple[Tensor, Tensor]


class Measured(NamedTuple):
    """The loss, the mean over images, and the accuracy, from 0 to 1."""

    loss: float
    accuracy: float


def interpolated(start: Weights, end: Weights, share: float) -> dict[str, Tensor]:
    """The weights at `share` of the way from `start` to `end`: (1 - share) start + share end."""
    return {name: torch.lerp(value, end[name], share) for name, value in start.items()}


def with_weights(model: nn.Module, weights: Weights, batches: Collection[Batch]) -> nn.Module:
    """A copy of a network with other weights and BatchNorm's statistics estimated again for them, in evaluation mode.

    Statistics that were averaged along a training belong to its own weights alone; between two of them they are wrong.
    The new ones are the plain averages over the batches, as by torch's `update_bn`.

    Args:
        model: Stays as it is.
        weights: For all of its trainable parameters, by name.
        batches: Of training images; each counts the same.
    """
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **weights})
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout in front of a BatchNorm draws
        update_bn(batches, other)
    return other.eval()


@torch.no_grad()
def measured(model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], batches: Iterable[Batch]) -> Measured:
    """Measure a network, in the mode that it is in, on batches `(images, labels)`."""
    loss, right, count = 0.0, 0, 0
    for images, labels in batches:
        logits = model(images)
        loss += float(criterion(logits, labels)) * len(labels)
        right += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return Measured(loss / count, right / count)


def barrier(shares: np.ndarray, losses: np.ndarray) -> float:
    """How far the losses between two networks rise above the straight line between theirs (arXiv:1912.05671).

    Args:
        shares: `(P,)`, rising, from 0 to 1.
        losses: `(P,)`, the loss at each.

    Returns:
        The largest height, in the units of the loss; 0 where none lies above.
    """
    straight = losses[0] + shares * (losses[-1] - losses[0])
    return float(np.max(losses - straight))
