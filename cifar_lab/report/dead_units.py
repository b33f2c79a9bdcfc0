"""The units of a run that never fire, as `python -m cifar_lab.explain` has left them in its folder."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cifar_lab.table.measured import Measured

FILE = "explanation/dead_units.csv"

_FEWEST_IMAGES = 2_000  # more can only make the share smaller, so those of fewer do not compare


def counted(run: Measured) -> Mapping[str, Any] | None:
    """What was counted in a run, or in the archive's copy of it, by the names of `docs/explain.md`.

    None where nobody has counted them in the run as it is now.
    """
    if run.record.run is not None:
        path = run.record.run.folder / FILE
    elif run.archive is not None:
        path = run.archive.dead_units_file(str(run.record.identity))
    else:
        return None
    try:
        # The run's own row is the first; those after it are of networks that it was set beside.
        own = {str(name): value for name, value in pd.read_csv(path).iloc[0].items()}
    except (OSError, ValueError, IndexError):  # none, or a damaged one
        return None
    return own if str(own.get("fingerprint")) == str(run.record.identity) else None


def negative_only(run: Measured) -> float | None:
    """The share of units whose input is never above 0, from 0 to 1, of `docs/explain.md`.

    None where nobody has counted them in the run as it is now, over at least 2,000 images.
    """
    own = counted(run)
    if own is None:
        return None
    try:
        share, images = float(own["negative_only"]), int(own["images"])
    except (ValueError, TypeError, KeyError):
        return None
    return share if images >= _FEWEST_IMAGES and 0 <= share <= 1 else None
