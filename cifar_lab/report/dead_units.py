"""The units of a run that never fire, as `python -m cifar_lab.explain` has left them in its folder."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cifar_lab.runs import Record

_FEWEST_IMAGES = 2_000  # more can only make the share smaller, so those of fewer do not compare


def counted(run: Record) -> Mapping[str, Any] | None:
    """The row of `dead_units.csv` of `docs/explain.md`; None if the run's units, as it is now, are not counted."""
    if run.numbers is None:
        return None
    try:
        # The run's own row is the first; those after it are of networks that it was compared with.
        own = {str(name): value for name, value in pd.read_csv(run.numbers.dead_units).iloc[0].items()}
    except (OSError, ValueError, IndexError):  # none, or a damaged one
        return None
    return own if str(own.get("fingerprint")) == str(run.identity) else None


def negative_only(run: Record) -> float | None:
    """The share of units whose input is never above 0, from 0 to 1; None if not counted over at least 2,000 images."""
    own = counted(run) or {}
    try:
        share, images = float(own["negative_only"]), int(own["images"])
    except (ValueError, TypeError, KeyError):
        return None
    return share if images >= _FEWEST_IMAGES and 0 <= share <= 1 else None
