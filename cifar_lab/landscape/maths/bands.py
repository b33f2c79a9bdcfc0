"""The band between the lowest and highest training loss over several learning rates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Float32 cross-entropy is -ln of a number near 1, so smaller losses are rounding. The bound keeps logarithms finite.
SMALLEST_LOSS = 2.0**-24


class Band(NamedTuple):
    """The lowest and highest loss of several runs at each step, both `(..., steps)`."""

    low: np.ndarray
    high: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """`high - low`, `(..., steps)`."""
        return self.high - self.low

    @property
    def log_width(self) -> np.ndarray:
        """`ln(high / low)`, `(..., steps)`: the width on a logarithmic axis."""
        return np.log(np.maximum(self.high, SMALLEST_LOSS)) - np.log(np.maximum(self.low, SMALLEST_LOSS))

    def numbers(self) -> dict[str, np.ndarray]:
        """Return `area` (loss times steps, trapezoidal rule) and `mean_width`, each also for ln(loss)."""
        return {
            "area": np.trapezoid(self.width),
            "log_area": np.trapezoid(self.log_width),
            "mean_width": self.width.mean(axis=-1),
            "mean_log_width": self.log_width.mean(axis=-1),
        }


def finite_steps(losses: np.ndarray) -> int:
    """Count the losses `(steps,)` before the first non-finite one."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    return int(wrong[0]) if len(wrong) else len(losses)


def band(losses: Sequence[np.ndarray]) -> Band:
    """Return the band of several runs, over the steps that all of them have.

    The band ends with the shortest run, because it would be narrower with one learning rate fewer. Exclude the learning
    rate of a diverged run from every band that is compared.

    Args:
        losses: Finite losses `(steps,)` of each learning rate.

    Raises:
        ValueError: There are fewer than two runs, or a loss is not finite.
    """
    if len(losses) < 2:
        raise ValueError(f"a band needs the losses of two learning rates, not {len(losses)}")
    if any(finite_steps(run) < len(run) for run in losses):
        raise ValueError("a band needs runs whose losses are all finite")
    steps = min(map(len, losses))
    stack = np.stack([np.asarray(run[:steps], dtype=np.float64) for run in losses])
    return Band(stack.min(axis=0), stack.max(axis=0))


def share_wider(first: Band, second: Band, *, in_log: bool = False) -> np.ndarray:
    """Return the fraction of steps at which `first` is wider than `second`, by ln(high / low) if `in_log`.

    Raises:
        ValueError: The bands differ in their number of steps.
    """
    if first.low.shape[-1] != second.low.shape[-1]:
        steps = f"{first.low.shape[-1]} and {second.low.shape[-1]} steps"
        raise ValueError(f"bands of {steps} cannot be compared step by step")
    return (first.log_width > second.log_width if in_log else first.width > second.width).mean(axis=-1)


def epoch_means(values: np.ndarray, steps_per_epoch: int) -> np.ndarray:
    """Average `values` `(..., steps)` over each epoch, `(..., epochs)`; the last epoch may have fewer steps."""
    starts = np.arange(0, values.shape[-1], steps_per_epoch)
    return np.add.reduceat(values, starts, axis=-1) / np.diff([*starts, values.shape[-1]])
