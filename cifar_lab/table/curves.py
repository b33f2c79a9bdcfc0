"""What a run's curves say in one number."""

import numpy as np
import pandas as pd


def instability(metrics: pd.DataFrame, epochs: int = 20) -> float:
    """Standard deviation of the changes of `val/acc` from one validated epoch to the next, over the last epochs.

    Args:
        metrics: A row per epoch.
        epochs: How many of the last ones.

    Returns:
        From 0 to 1; NaN of fewer than three validated epochs.
    """
    changes = np.diff(_last(metrics, "val/acc", epochs))
    return float(changes.std(ddof=1)) if len(changes) > 1 else float("nan")


def mean_jump(metrics: pd.DataFrame) -> float:
    """Mean size of the changes of `val/loss` from one validated epoch to the next; NaN of fewer than two epochs."""
    changes = np.abs(np.diff(_last(metrics, "val/loss", len(metrics))))
    return float(changes.mean()) if len(changes) else float("nan")


def largest_jump(metrics: pd.DataFrame, after: int = 10) -> float:
    """The largest size of a change of `val/loss` from one validated epoch to the next, once training has settled.

    Args:
        metrics: A row per epoch.
        after: The epoch, from 1, at which the first of the changes may begin.

    Returns:
        NaN where there is no change.
    """
    changes = np.abs(np.diff(metrics.loc[metrics["epoch"] >= after, "val/loss"].dropna()))
    return float(changes.max()) if len(changes) else float("nan")


def epochs_to(metrics: pd.DataFrame, accuracy: float) -> float:
    """The first epoch, from 1, whose `val/acc` is `accuracy` or more; NaN where none is."""
    reached = metrics.loc[metrics["val/acc"] >= accuracy, "epoch"]
    return float(reached.iloc[0]) if len(reached) else float("nan")


def _last(metrics: pd.DataFrame, name: str, epochs: int) -> np.ndarray:
    return metrics[name].dropna().to_numpy(dtype=float)[-(epochs + 1) :]
