"""The three quantities of arXiv:1805.11604 from the probes of a run, and the limits of the third.

At a probed step with weights w, gradient g and learning rate lr, over a grid of step sizes eta:

- loss variation: the range of L(w - eta g);
- gradient predictiveness: the range of ||g - g'||, where g' is the gradient at w - eta g;
- effective beta-smoothness: the largest ||g - g'|| / (eta ||g||).

The third one has a ceiling. Where g' has nothing left of g and is no longer, ||g - g'|| is about ||g||, and the
quotient 1/eta for every network: so the largest is 1/eta_min, a number of the grid. `ceiling` and `at_ceiling` say
where a beta is of that kind. The limit for eta -> 0, `hessian_norm` = ||Hg|| / ||g||, depends on the network alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

PAPER_MULTIPLES = (0.5, 1.0, 2.0, 4.0)
"""The paper's step sizes, in learning rates."""

# beta * eta_min = ||g - g'|| / ||g|| within these bounds is at the ceiling. A gradient that has shrunk to a fifth of g
# or less gives 0.8 or more in any direction; one that is orthogonal to g and no longer than it gives 1 to the square
# root of 2, with a small correlation a little more. Beyond 1.5 g' is longer than g, a property of the network.
CEILING_BOUNDS = (0.8, 1.5)


class Smoothness(NamedTuple):
    """The quantities of P probes over a grid of step sizes; all `(P,)`.

    A step size at which the loss or the gradient is not finite counts as infinitely far away.

    Attributes:
        step: Optimizer steps before the probe.
        loss_low: The lowest loss over the grid.
        loss_high: The highest.
        gradient_low: The shortest ||g - g'|| over the grid.
        gradient_high: The longest.
        beta: The largest quotient ||g - g'|| / (eta ||g||).
        ceiling: 1/eta_min.
        at_ceiling: Whether `beta` is the ceiling's, and says nothing of the network.
        cosine: Between g and g' at eta = lr; NaN where the grid has no such step size, or a gradient is zero.
        hessian_norm: ||Hg|| / ||g||, the limit of the quotient.
        sharpness: g'Hg / ||g||^2.
    """

    step: np.ndarray
    loss_low: np.ndarray
    loss_high: np.ndarray
    gradient_low: np.ndarray
    gradient_high: np.ndarray
    beta: np.ndarray
    ceiling: np.ndarray
    at_ceiling: np.ndarray
    cosine: np.ndarray
    hessian_norm: np.ndarray
    sharpness: np.ndarray

    @property
    def loss_range(self) -> np.ndarray:
        """Loss variation."""
        return _range(self.loss_low, self.loss_high)

    @property
    def gradient_range(self) -> np.ndarray:
        """Gradient predictiveness: the smaller, the better the gradient predicts."""
        return _range(self.gradient_low, self.gradient_high)


def has_grid(probes: Mapping[str, np.ndarray], multiples: Sequence[float]) -> bool:
    """Whether every probe has these step sizes, in learning rates."""
    return all(_near(probes, [multiple]).any(axis=1).all() for multiple in multiples)


def smoothness(probes: Mapping[str, np.ndarray], multiples: Sequence[float] | None = None) -> Smoothness:
    """The quantities of every probe whose own loss is finite.

    Args:
        probes: The arrays of `probes.npz`, of P probes and J step sizes.
        multiples: The grid, in learning rates; without it all step sizes.

    Raises:
        ValueError: A probe lacks one of them.
    """
    if multiples is not None and not has_grid(probes, multiples):
        told = ", ".join(f"{multiple:g}" for multiple in multiples)
        raise ValueError(f"the probes have not the step sizes {told} x lr; set probe.etas")
    finite = np.isfinite(probes["loss"])
    eta = probes["eta"][finite]
    wanted = np.ones(eta.shape, dtype=bool) if multiples is None else _near(probes, multiples)[finite]

    def over_grid(name: str) -> np.ma.MaskedArray:
        values = probes[name][finite]
        return np.ma.masked_array(np.where(np.isfinite(values), values, np.inf), ~wanted)

    loss, distance = over_grid("moved_loss"), over_grid("grad_distance")
    beta = over_grid("beta").max(axis=1).data
    ceiling = 1 / np.ma.masked_array(eta, ~wanted).min(axis=1).data
    at_lr = _near(probes, [1.0])
    cosine_at_lr = probes["grad_cosine"][np.arange(len(at_lr)), at_lr.argmax(axis=1)]
    return Smoothness(
        probes["step"][finite],
        loss.min(axis=1).data,
        loss.max(axis=1).data,
        distance.min(axis=1).data,
        distance.max(axis=1).data,
        beta,
        ceiling,
        (beta / ceiling >= CEILING_BOUNDS[0]) & (beta / ceiling <= CEILING_BOUNDS[1]),
        np.where(at_lr.any(axis=1), cosine_at_lr, np.nan)[finite],
        probes["hessian_norm"][finite],
        probes["sharpness"][finite],
    )


def median_of(values: np.ndarray) -> float:
    """The median of the values that are numbers; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def median_ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """The median over P probes of a quotient of two `(P,)`, leaving out NaN, as of two infinities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return median_of(numerator / denominator)


def _near(probes: Mapping[str, np.ndarray], multiples: Sequence[float]) -> np.ndarray:
    """`(P, J)`: which step sizes are among these, in learning rates."""
    relative = probes["eta"] / probes["lr"][:, None]
    return np.isclose(relative[..., None], np.asarray(multiples), rtol=1e-4).any(axis=-1)


def _range(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`high - low`, infinite where both are."""
    return high - np.where(np.isfinite(low), low, 0)
