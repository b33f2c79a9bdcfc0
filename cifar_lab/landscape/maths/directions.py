"""Directions in the space of a network's weights: random ones by filters, and those that a training took."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cifar_lab.landscape.maths.functional import Weights, difference

# Variance along a direction, as a share of the whole, that is nothing but rounding.
_ROUNDING = 1e-10


class Plane(NamedTuple):
    """The plane that a training moved in most, through its last weights.

    Attributes:
        directions: Two, of length 1 and at right angles to each other.
        explained: `(2,)`, the share from 0 to 1 of the variance of all weights that lies along each.
        coordinates: `(snapshots, 2)`, where each snapshot lies; the last at (0, 0).
    """

    directions: tuple[dict[str, Tensor], dict[str, Tensor]]
    explained: np.ndarray
    coordinates: np.ndarray


def random_direction(weights: Weights, generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction, filter-normalised: Gaussian, each filter with the norm of the weights' filter.

    A filter is what gives one output: of a convolution `(C, H, W)`, of a linear layer a row. Biases and BatchNorm's
    weights, all of one dimension, stay where they are (arXiv:1712.09913, section 4).

    Args:
        weights: Whose filters it is normalised to.
        generator: On the CPU; the same state draws the same direction.
    """
    direction = {}
    for name, value in weights.items():
        drawn = torch.randn(value.shape, generator=generator).to(value)
        direction[name] = _with_norms_of(value, drawn) if value.dim() > 1 else torch.zeros_like(value)
    return direction


def _with_norms_of(weight: Tensor, drawn: Tensor) -> Tensor:
    scale = weight.flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
    return drawn * scale.view(-1, *[1] * (weight.dim() - 1))


def trajectory_plane(snapshots: Sequence[Weights]) -> Plane:
    """The first two principal directions of a training's snapshots (arXiv:1712.09913, section 7).

    The last snapshot counts as a point like the others, which the source leaves out: so three span a plane.

    Args:
        snapshots: In the order of training.

    Raises:
        ValueError: They lie in one point or on one line.
    """
    if len(snapshots) < 3:
        raise ValueError(f"{len(snapshots)} snapshots span no plane; it takes three")
    last = snapshots[-1]
    scalars = _scalar_products([difference(weights, last) for weights in snapshots])
    centre = np.eye(len(snapshots)) - 1 / len(snapshots)
    variances, parts = np.linalg.eigh(centre @ scalars @ centre)
    variances, parts = variances[::-1][:2], parts[:, ::-1][:, :2]
    total = np.trace(centre @ scalars @ centre)
    if not variances[1] > _ROUNDING * total:
        raise ValueError(f"{len(snapshots)} snapshots span no plane, as they lie on one line")
    parts *= np.sign(parts[np.abs(parts).argmax(axis=0), [0, 1]])  # which way an eigenvector points is chance
    # Coefficients that sum to zero, so that snapshots may stand for their distances from the mean.
    shares = centre @ parts / np.sqrt(variances)
    first, second = (_combined(snapshots, shares[:, axis]) for axis in (0, 1))
    return Plane((first, second), variances / total, scalars @ shares)


def _scalar_products(vectors: Sequence[Weights]) -> np.ndarray:
    """`(n, n)` in float64, a tensor of the weights at a time: all of them together could fill the memory."""
    products = np.zeros((len(vectors), len(vectors)))
    for name in vectors[0]:
        rows = torch.stack([vector[name].flatten() for vector in vectors]).double()
        products += (rows @ rows.T).cpu().numpy()
    return products


def _combined(vectors: Sequence[Weights], factors: np.ndarray) -> dict[str, Tensor]:
    return {
        name: sum(
            (factor * vector[name].double() for vector, factor in zip(vectors, factors.tolist(), strict=True)),
            start=torch.zeros((), dtype=torch.float64, device=value.device),
        ).to(value.dtype)
        for name, value in vectors[0].items()
    }
