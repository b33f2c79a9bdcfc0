"""Numbers that sum up a run's curves; its metrics have a row per epoch."""

import numpy as np
import pandas as pd


def instability(metrics: pd.DataFrame, epochs: int = 20) -> float:
    """Standard deviation of the changes of `val/acc` from one validated epoch to the next, over the last `epochs`.

    From 0 to 1; NaN for fewer than three validated epochs.
    """
    changes = np.diff(metrics["val/acc"].dropna().to_numpy(dtype=float)[-(epochs + 1) :])
    return float(changes.std(ddof=1)) if len(changes) > 1 else float("nan")


def mean_jump(metrics: pd.DataFrame) -> float:
    """Mean size of the changes of `val/loss` from one validated epoch to the next; NaN for fewer than two epochs."""
    changes = np.abs(np.diff(metrics["val/loss"].dropna()))
    return float(changes.mean()) if len(changes) else float("nan")


def largest_jump(metrics: pd.DataFrame, after: int = 10) -> float:
    """The largest change of `val/loss` from one validated epoch to the next, from epoch `after` on; NaN without one."""
    changes = np.abs(np.diff(metrics.loc[metrics["epoch"] >= after, "val/loss"].dropna()))
    return float(changes.max()) if len(changes) else float("nan")


def epochs_to(metrics: pd.DataFrame, accuracy: float) -> float:
    """The first epoch, from 1, with a `val/acc` of at least `accuracy`; NaN without one."""
    reached = metrics.loc[metrics["val/acc"] >= accuracy, "epoch"]
    return float(reached.iloc[0]) if len(reached) else float("nan")
