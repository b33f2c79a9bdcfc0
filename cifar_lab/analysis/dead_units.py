"""The units of a run that never fire, as `python -m cifar_lab.explain` has left them in its folder."""

import pandas as pd

from cifar_lab.analysis.measured import Measured

FILE = "explanation/dead_units.csv"


_FEWEST_IMAGES = 2_000  # more can only make the share smaller, so those of fewer do not compare


def negative_only(run: Measured) -> float | None:
    """The share of units whose input is never above 0, from 0 to 1, of `docs/explain.md`.

    None where nobody has counted them in the run as it is now, over at least 2,000 images.
    """
    if run.record.run is None:
        return None
    try:
        # The run's own row is the first; those after it are of networks that it was set beside.
        own = pd.read_csv(run.record.run.folder / FILE).iloc[0]
        share, images = float(own["negative_only"]), int(own["images"])
    except (OSError, ValueError, TypeError, KeyError, IndexError):  # none, or a damaged one
        return None
    is_its_own = str(own.get("fingerprint")) == str(run.record.identity)
    return share if is_its_own and images >= _FEWEST_IMAGES and 0 <= share <= 1 else None
