"""The band that the training losses of several learning rates span at each step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Cross-entropy in float32 is -ln of a number near 1, so it tells no loss below this from zero, whose logarithm would
# be infinite.
SMALLEST_LOSS = 2.0**-24


class Band(NamedTuple):
    """The lowest and the highest loss of several runs at each step, both `(steps,)`."""

    low: np.ndarray
    high: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """How far apart they are, `(steps,)`, in the loss's unit."""
        return self.high - self.low

    @property
    def log_width(self) -> np.ndarray:
        """`ln(high / low)`, `(steps,)`: the width of the band on a logarithmic axis."""
        return np.log(np.maximum(self.high, SMALLEST_LOSS)) - np.log(np.maximum(self.low, SMALLEST_LOSS))


class BandNumbers(NamedTuple):
    """A band in numbers.

    Attributes:
        area: Between its two curves, in the loss's unit times steps, by the trapezoidal rule.
        log_area: The same between their natural logarithms.
        mean_width: Over the steps, in the loss's unit.
        mean_log_width: Over the steps, of ln(max / min).
    """

    area: float
    log_area: float
    mean_width: float
    mean_log_width: float


def finite_steps(losses: np.ndarray) -> int:
    """How many of the first losses `(steps,)` are finite; all of them, unless the run diverged."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    return int(wrong[0]) if len(wrong) else len(losses)


def band(losses: Sequence[np.ndarray]) -> Band:
    """The band of several runs, at the steps that all of them have.

    A band ends with the run that ends first: with a rate less it would be narrower for no reason of its own. So whoever
    has a run that diverged leaves its rate out of every band that is compared, and says so.

    Args:
        losses: Of each learning rate, `(steps,)`, finite.

    Raises:
        ValueError: There are fewer than two runs, or a loss is not finite.
    """
    if len(losses) < 2:
        raise ValueError(f"a band needs the losses of two learning rates, not {len(losses)}")
    if any(finite_steps(run) < len(run) for run in losses):
        raise ValueError("a run whose loss is no finite number has no place in a band")
    steps = min(map(len, losses))
    stack = np.stack([np.asarray(run[:steps], dtype=np.float64) for run in losses])
    return Band(stack.min(axis=0), stack.max(axis=0))


def numbers(band: Band) -> BandNumbers:
    """The area between the curves of a band, and its mean width, linear and in the natural logarithm."""
    return BandNumbers(
        float(np.trapezoid(band.width)),
        float(np.trapezoid(band.log_width)),
        float(band.width.mean()),
        float(band.log_width.mean()),
    )


def share_wider(first: Band, second: Band, *, in_log: bool = False) -> float:
    """The share of steps at which `first` is the wider one, from 0 to 1.

    Args:
        first: A band.
        second: One with as many steps.
        in_log: Whether widths are those of ln(max / min).

    Raises:
        ValueError: They have not as many steps.
    """
    if len(first.low) != len(second.low):
        raise ValueError(f"bands of {len(first.low)} and {len(second.low)} steps cannot be compared step by step")
    wider = first.log_width > second.log_width if in_log else first.width > second.width
    return float(wider.mean())


def epoch_means(values: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """Means over each epoch, `(epochs,)`; the last one may have fewer steps.

    Args:
        values: `(steps,)`.
        steps_per_epoch: Optimizer steps in an epoch.
    """
    starts = np.arange(0, len(values), steps_per_epoch)
    return np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
