"""The band that the training losses of several learning rates span at each step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Cross-entropy in float32 is -ln of a number near 1, so no loss below this differs from zero, whose logarithm is
# infinite.
SMALLEST_LOSS = 2.0**-24


class Band(NamedTuple):
    """The lowest and the highest loss of several runs at each step, both `(..., steps)`."""

    low: np.ndarray
    high: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """`high - low`, `(..., steps)`."""
        return self.high - self.low

    @property
    def log_width(self) -> np.ndarray:
        """`ln(high / low)`, `(..., steps)`: the width of the band on a logarithmic axis."""
        return np.log(np.maximum(self.high, SMALLEST_LOSS)) - np.log(np.maximum(self.low, SMALLEST_LOSS))

    def numbers(self) -> dict[str, np.ndarray]:
        """The `area` between the curves (loss times steps, trapezoidal rule), `mean_width`, and both for ln(loss)."""
        return {
            "area": np.trapezoid(self.width),
            "log_area": np.trapezoid(self.log_width),
            "mean_width": self.width.mean(axis=-1),
            "mean_log_width": self.log_width.mean(axis=-1),
        }


def finite_steps(losses: np.ndarray) -> int:
    """How many of the first losses `(steps,)` are finite; all of them, unless the run diverged."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    return int(wrong[0]) if len(wrong) else len(losses)


def band(losses: Sequence[np.ndarray]) -> Band:
    """The band of several runs, at the steps that all of them have.

    It ends with the shortest run, because with a learning rate less it would be narrower. So leave the rate of a run
    that diverged out of every band that is compared. `losses` are finite, `(steps,)` of each learning rate.

    Raises:
        ValueError: There are fewer than two runs, or a loss is not finite.
    """
    if len(losses) < 2:
        raise ValueError(f"a band needs the losses of two learning rates, not {len(losses)}")
    if any(finite_steps(run) < len(run) for run in losses):
        raise ValueError("a run whose loss is not finite has no place in a band")
    steps = min(map(len, losses))
    stack = np.stack([np.asarray(run[:steps], dtype=np.float64) for run in losses])
    return Band(stack.min(axis=0), stack.max(axis=0))


def share_wider(first: Band, second: Band, *, in_log: bool = False) -> np.ndarray:
    """The share of steps, from 0 to 1, at which `first` is wider than `second`, by ln(max / min) if `in_log`.

    Raises:
        ValueError: The bands differ in their number of steps.
    """
    if first.low.shape[-1] != second.low.shape[-1]:
        steps = f"{first.low.shape[-1]} and {second.low.shape[-1]} steps"
        raise ValueError(f"bands of {steps} cannot be compared step by step")
    return (first.log_width > second.log_width if in_log else first.width > second.width).mean(axis=-1)


def epoch_means(values: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """Means of `values`, `(..., steps)`, over each epoch, `(..., epochs)`; the last one may have fewer steps."""
    starts = np.arange(0, values.shape[-1], steps_per_epoch)
    return np.add.reduceat(values, starts, axis=-1) / np.diff([*starts, values.shape[-1]])
