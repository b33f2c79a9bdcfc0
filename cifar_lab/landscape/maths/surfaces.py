"""A loss on a line or a plane through weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cifar_lab.landscape.maths.functional import Loss, Weights, moved


def grid(*axes: np.ndarray) -> np.ndarray:
    """Every point of a grid, `(points, len(axes))`; the last axis varies fastest."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def weights_at(weights: Weights, directions: Sequence[Weights], coordinates: Sequence[float]) -> dict[str, Tensor]:
    """The weights at `coordinates`, in units of each direction's length, from `weights`."""
    there = dict(weights)
    for direction, distance in zip(directions, coordinates, strict=True):
        there = moved(there, direction, float(distance))
    return there


def losses_at(loss: Loss, weights: Weights, directions: Sequence[Weights], points: np.ndarray) -> np.ndarray:
    """The loss at points of the space that directions span.

    Args:
        loss: A function of weights.
        weights: The origin.
        directions: One for a line, two for a plane.
        points: `(P, directions)`, as of `grid`.

    Returns:
        `(P,)`, float64; what is not finite stays so.
    """
    with torch.no_grad():
        return np.array([float(loss(weights_at(weights, directions, point))) for point in points.tolist()])


def common_levels(surfaces: Sequence[np.ndarray], count: int = 15) -> np.ndarray:
    """Levels that several surfaces are drawn at, evenly spaced in the logarithm of the loss.

    They go from the lowest loss to that which a tenth of all points lie above: far from a minimum a loss can rise
    without bound, and levels for that would leave none for the rest.

    Args:
        surfaces: Losses of any shape; at least one is finite and above zero.
        count: At least 2.

    Returns:
        `(count,)`, rising.
    """
    losses = np.concatenate([np.ravel(values) for values in surfaces])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    low, high = positive.min(), np.quantile(positive, 0.9)
    return np.geomspace(low, high if high > 1.001 * low else 1.01 * low, count)
