"""A loss on a line or plane through weights: along random filters, or along a training trajectory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cifar_lab.landscape.maths.functional import Loss, Weights, difference, moved
from cifar_lab.machine.exit_codes import UsageError

# Fraction of the variance along a direction below which it is rounding.
_ROUNDING = 1e-10


class Plane(NamedTuple):
    """The plane of the first two principal directions of a training, through its last weights."""

    directions: tuple[dict[str, Tensor], dict[str, Tensor]]  # orthonormal
    explained: np.ndarray  # `(2,)`, fraction of the variance of all weights along each direction
    coordinates: np.ndarray  # `(snapshots, 2)`, projection of each snapshot; the last is (0, 0)


def random_direction(weights: Weights, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a Gaussian direction, filter-normalised: each filter has the norm of the weights' filter.

    A filter produces one output: `(C, H, W)` in a convolution, a row in a linear layer. The direction is zero for
    biases and BatchNorm's weights, which have one dimension (arXiv:1712.09913, section 4). `generator` is on the CPU.
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
    """Compute the first two principal directions of a training's snapshots (arXiv:1712.09913, section 7).

    Unlike the source, counts the last snapshot as a point like the others, so three snapshots span a plane.

    Raises:
        ValueError: There are fewer than three snapshots, or they are collinear.
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
        raise UsageError(f"{len(snapshots)} snapshots do not span a plane, because they lie on one line")
    parts *= np.sign(parts[np.abs(parts).argmax(axis=0), [0, 1]])  # an eigenvector's sign is arbitrary
    # The coefficients sum to zero, so the snapshots need not be centred.
    shares = centre @ parts / np.sqrt(variances)
    first, second = (_combined(snapshots, shares[:, axis]) for axis in (0, 1))
    return Plane((first, second), variances / total, scalars @ shares)


def grid(*axes: np.ndarray) -> np.ndarray:
    """Return all points of a grid, `(points, len(axes))`; the last axis varies fastest."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def losses_at(loss: Loss, weights: Weights, directions: Sequence[Weights], points: np.ndarray) -> np.ndarray:
    """Return the losses `(P,)`, float64, at `weights` plus linear combinations of `directions`.

    `points` `(P, directions)` are the coefficients. Losses may be infinite or NaN.
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
    """Return contour levels `(count,)` shared by several surfaces, ascending and evenly spaced in ln(loss).

    They range from the lowest loss to the 90 % quantile, because a loss rises without bound far from a minimum and
    would take up all levels. At least one loss must be finite and positive.
    """
    losses = np.concatenate([np.ravel(values) for values in surfaces])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    low, high = positive.min(), np.quantile(positive, 0.9)
    return np.geomspace(low, high if high > 1.001 * low else 1.01 * low, count)


def _scalar_products(vectors: Sequence[Weights]) -> np.ndarray:
    """Return the Gram matrix `(n, n)` in float64, computed one tensor at a time to save memory."""
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
