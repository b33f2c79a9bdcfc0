"""Summary statistics of a run's curves. `metrics` has a row per epoch."""

import numpy as np
import pandas as pd


def instability(metrics: pd.DataFrame, epochs: int = 20) -> float:
    """Return the standard deviation of the epoch-to-epoch changes of `val/acc` over the last `epochs` validated epochs.

    From 0 to 1; NaN for fewer than three validated epochs.
    """
    changes = np.diff(metrics["val/acc"].dropna().to_numpy(dtype=float)[-(epochs + 1) :])
    return float(changes.std(ddof=1)) if len(changes) > 1 else float("nan")


def mean_jump(metrics: pd.DataFrame) -> float:
    """Return the mean absolute change of `val/loss` between validated epochs; NaN for fewer than two epochs."""
    changes = np.abs(np.diff(metrics["val/loss"].dropna()))
    return float(changes.mean()) if len(changes) else float("nan")


def largest_jump(metrics: pd.DataFrame, after: int = 10) -> float:
    """Return the largest absolute change of `val/loss` between validated epochs from `after` on; NaN without one."""
    changes = np.abs(np.diff(metrics.loc[metrics["epoch"] >= after, "val/loss"].dropna()))
    return float(changes.max()) if len(changes) else float("nan")


def epochs_to(metrics: pd.DataFrame, accuracy: float) -> float:
    """Return the first epoch, from 1, with a `val/acc` of at least `accuracy`; NaN if there is none."""
    reached = metrics.loc[metrics["val/acc"] >= accuracy, "epoch"]
    return float(reached.iloc[0]) if len(reached) else float("nan")
