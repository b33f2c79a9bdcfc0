"""The units of a run that never fire, as `python -m cifar_lab.explain` has left them in its folder."""

import pandas as pd

from cifar_lab.analysis.measured import Measured

FILE = "explanation/dead_units.csv"


def negative_only(run: Measured) -> float | None:
    """The share of units whose input is never above 0, from 0 to 1, of `docs/explain.md`; None where none is there."""
    if run.record.run is None:
        return None
    try:
        # The run's own row is the first; those after it are of networks that it was set beside.
        return float(pd.read_csv(run.record.run.folder / FILE)["negative_only"].iloc[0])
    except (OSError, ValueError, KeyError, IndexError):  # none, or a damaged one, which has measured nothing
        return None
