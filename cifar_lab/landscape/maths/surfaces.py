"""A loss on a line or a plane through weights: along random filters, or where a training went."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cifar_lab.landscape.maths.functional import Loss, Weights, difference, moved
from cifar_lab.machine.exit_codes import UsageError

# Below this share of the total variance, the variance along a direction is only rounding.
_ROUNDING = 1e-10


class Plane(NamedTuple):
    """The plane that a training moved in most, through its last weights."""

    directions: tuple[dict[str, Tensor], dict[str, Tensor]]  # two, orthonormal
    explained: np.ndarray  # `(2,)`, the share from 0 to 1 of the variance of all weights that lies along each
    coordinates: np.ndarray  # `(snapshots, 2)`, where each snapshot lies; the last at (0, 0)


def random_direction(weights: Weights, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a Gaussian, filter-normalised direction: each of its filters has the norm of the network's filter.

    A filter computes one output: `(C, H, W)` of a convolution, a row of a linear layer. One-dimensional parameters,
    biases and BatchNorm's weights, do not move (arXiv:1712.09913, section 4). The generator is on the CPU.
    """
    direction = {}
    for name, value in weights.items():
        drawn = torch.randn(value.shape, generator=generator).to(value)
        direction[name] = torch.zeros_like(value)
        if value.dim() > 1:
            scale = value.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
            direction[name] = drawn * scale.view(-1, *[1] * (value.dim() - 1))
    return direction


def trajectory_plane(snapshots: Sequence[Weights]) -> Plane:
    """The first two principal directions of a training's snapshots (arXiv:1712.09913, section 7).

    Departs from the source in that the last snapshot counts as a point like the others, so three span a plane.

    Raises:
        ValueError: They lie in one point or on one line.
    """
    if len(snapshots) < 3:
        raise UsageError(f"{len(snapshots)} snapshots do not span a plane; at least three are needed")
    last = snapshots[-1]
    scalars = _scalar_products([difference(weights, last) for weights in snapshots])
    centre = np.eye(len(snapshots)) - 1 / len(snapshots)
    variances, parts = np.linalg.eigh(centre @ scalars @ centre)
    variances, parts = variances[::-1][:2], parts[:, ::-1][:, :2]
    total = np.trace(centre @ scalars @ centre)
    if not variances[1] > _ROUNDING * total:
        raise UsageError(f"{len(snapshots)} snapshots do not span a plane, because they are on one line")
    parts *= np.sign(parts[np.abs(parts).argmax(axis=0), [0, 1]])  # an eigenvector's sign is chance
    # The coefficients sum to zero, so snapshots may stand for their distances from the mean.
    shares = centre @ parts / np.sqrt(variances)
    first, second = (_combined(snapshots, shares[:, axis]) for axis in (0, 1))
    return Plane((first, second), variances / total, scalars @ shares)


def grid(*axes: np.ndarray) -> np.ndarray:
    """Every point of a grid, `(points, len(axes))`; the last axis varies fastest."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def losses_at(loss: Loss, weights: Weights, directions: Sequence[Weights], points: np.ndarray) -> np.ndarray:
    """The loss, `(P,)` in float64, at points of the space that directions from `weights` span.

    The points `(P, directions)` are in units of each direction's length. A loss may be infinite or NaN.
    """
    losses = []
    with torch.no_grad():
        for point in points.tolist():
            there = weights
            for direction, distance in zip(directions, point, strict=True):
                there = moved(there, direction, distance)
            losses.append(float(loss(there)))
    return np.array(losses)


def common_levels(surfaces: Sequence[np.ndarray], count: int = 15) -> np.ndarray:
    """Contour levels `(count,)` of several surfaces, rising and evenly spaced in the logarithm of the loss.

    They go from the lowest loss to the 90 % quantile: far from a minimum a loss rises without bound, and levels for
    that would leave none for the rest. At least one loss is finite and above zero.
    """
    losses = np.concatenate([np.ravel(values) for values in surfaces])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    low, high = positive.min(), np.quantile(positive, 0.9)
    return np.geomspace(low, high if high > 1.001 * low else 1.01 * low, count)


def _scalar_products(vectors: Sequence[Weights]) -> np.ndarray:
    """`(n, n)` in float64, one tensor of the weights at a time: all together could fill the memory."""
    products = np.zeros((len(vectors), len(vectors)))
    for name in vectors[0]:
        rows = torch.stack([vector[name].flatten() for vector in vectors]).double()
        products += (rows @ rows.T).cpu().numpy()
    return products


def _combined(vectors: Sequence[Weights], factors: np.ndarray) -> dict[str, Tensor]:
    combined = {}
    for name, value in vectors[0].items():
        total = torch.zeros_like(value, dtype=torch.float64)
        for vector, factor in zip(vectors, factors.tolist(), strict=True):
            total += factor * vector[name].double()
        combined[name] = total.to(value.dtype)
    return combined
