"""Internal covariate shift of runs, as `python -m cifar_lab.landscape covariate-shift` has left it beside them."""

from pathlib import Path

import pandas as pd

from cifar_lab.landscape.batch_norm.numbers import Estimate, difference
from cifar_lab.landscape.batch_norm.runs import Group, LandscapeRun

FILE = "covariate_shift.csv"
_COLUMNS = {"run", "epoch", "layer", "cosine"}


def cosine_gain(group: Group, init: str) -> tuple[Estimate, float, float] | None:
    """How much more of a layer's gradient is left, with BatchNorm, once the layers below it have taken their step.

    The median of cos(G, G') over layers and epochs, of the seeds that both networks have at one learning rate, the
    lowest first; the lowest layer, below which there is none, is left out.

    Returns:
        The gain with BatchNorm, and the mean of either network, with it and without; None where no seed has both.
    """
    found: dict[tuple[float, int], dict[bool, pd.DataFrame]] = {}
    for run in group.runs:
        if run.init == init and (rows := _rows(run)) is not None:
            found.setdefault((run.lr, run.seed), {})[run.bn] = rows
    pairs = {place: of_both for place, of_both in sorted(found.items()) if len(of_both) == 2}
    if not pairs:
        return None
    lowest_lr = next(iter(pairs))[0]
    medians = []
    for (lr, _), of_both in pairs.items():
        if lr == lowest_lr:
            epochs = set(of_both[True]["epoch"]) & set(of_both[False]["epoch"])
            known = [of_both[bn][of_both[bn]["epoch"].isin(epochs)] for bn in (True, False)]
            medians.append([float(rows["cosine"].median()) for rows in known])
    with_bn, without = pd.DataFrame(medians).mean()
    return difference([one - other for one, other in medians]), float(with_bn), float(without)


def _rows(run: LandscapeRun) -> pd.DataFrame | None:
    """A run's lines of the file in the folder that its own is in, or in `landscape` there, above the lowest layer."""
    folder = run.record.folder
    for path in [] if folder is None else [folder.parent / "landscape" / FILE, folder.parent / FILE]:
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError):  # none, or a damaged one, which has measured nothing
            continue
        if folder is not None and set(table.columns) >= _COLUMNS:
            own = table["run"].map(lambda label: Path(str(label)).name == folder.resolve().name)
            rows = table[own & (table["layer"] > table["layer"].min())]
            if rows["cosine"].notna().any():
                return rows
    return None
