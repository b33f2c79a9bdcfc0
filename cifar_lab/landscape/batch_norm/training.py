"""Training speed, usable learning rates and gradient stability of runs with and without BatchNorm."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cifar_lab.landscape.batch_norm.numbers import Estimate, difference, listed, median
from cifar_lab.landscape.batch_norm.runs import INITS, NAMES, Group, LandscapeRun
from cifar_lab.runs import Record
from cifar_lab.table.curves import epochs_to

ACCURACIES = (0.5, 0.7, 0.8)
# With ten classes, the accuracy of an untrained network is about 0.1.
USELESS = 0.15


class RateRange(NamedTuple):
    """The widest range of neighbouring learning rates at which every run trains."""

    tried: tuple[float, ...]  # all tried learning rates, ascending
    low: float | None  # lowest rate of the range; None if no rate trains
    high: float | None  # highest rate of the range; None if no rate trains

    def text(self) -> str:
        """Format with the width in decades, a lower bound if the range includes the lowest or highest tried rate."""
        if self.low is None or self.high is None:
            return f"none of {listed(self.tried)} trains"
        at_least = "at least " if self.low == self.tried[0] or self.high == self.tried[-1] else ""
        decades = math.log10(self.high / self.low)
        return f"{at_least}{decades:.2g} decades ({self.low:g} to {self.high:g} of {listed(self.tried)})"


def trains(run: Record) -> bool:
    """Whether a run has finished, without diverging, with a test accuracy of at least `USELESS`."""
    return run.is_finished and float(run.result["test/acc_final"]) >= USELESS


def rate_range(group: Group, *, bn: bool, init: str) -> RateRange:
    """Return the widest range of learning rates at which a network trains with every seed."""
    runs = [run for run in group.runs if (run.bn, run.init) == (bn, init) and run.record.has_ended]
    tried = tuple(sorted({run.lr for run in runs}))
    good = {rate for rate in tried if all(trains(run.record) for run in runs if run.lr == rate)}
    stretches = [list(rates) for is_good, rates in itertools.groupby(tried, key=good.__contains__) if is_good]
    widest = max(stretches, key=lambda stretch: stretch[-1] / stretch[0], default=[None])
    return RateRange(tried, widest[0], widest[-1])


def speed(group: Group) -> pd.DataFrame:
    """Tabulate the median epochs to each accuracy over seeds, one row per network, initialisation and learning rate."""
    lines = []
    for bn, init, lr in dict.fromkeys((run.bn, run.init, run.lr) for run in group.runs):
        runs = group.arm(bn, init, lr)
        line = {"network": NAMES[bn], "initialisation": INITS.get(init, init), "learning rate": f"{lr:g}"}
        for accuracy in ACCURACIES:
            line[f"epochs to {100 * accuracy:g} % validation accuracy"] = _epochs(runs, accuracy)
        ended = [run.record for run in runs if run.record.has_ended]
        line["trains"] = f"{sum(map(trains, ended))} of {len(ended)}"
        lines.append(line)
    return pd.DataFrame(lines)


def _epochs(runs: Sequence[LandscapeRun], accuracy: float) -> str:
    """Format the median epochs to an accuracy with its interval, or report how many runs never reach it."""
    known = [run.record.metrics for run in runs if run.record.is_finished and run.record.metrics is not None]
    reached = np.array([epochs_to(metrics, accuracy) for metrics in known])
    missing = int(np.isnan(reached).sum())
    if not len(reached):
        return "-"
    if missing:
        return "never" if missing == len(reached) else f"never in {missing} of {len(reached)} runs"
    return median(reached).text()


def cosine_gain(group: Group, init: str) -> tuple[Estimate, float, float] | None:
    """Return how much BatchNorm raises cos(G, G') of a layer's gradients before and after the lower layers' step.

    Takes the median over layers and epochs for each seed of both networks, at the lowest learning rate with such
    seeds. The lowest layer is left out because no layer lies below it.

    Returns:
        The gain with BatchNorm, and the means with and without it; None if no seed has both networks.
    """
    by_place: dict[tuple[float, int], dict[bool, pd.DataFrame]] = {}
    for run in group.runs:
        if run.init == init and (rows := _shifts(run)) is not None:
            by_place.setdefault((run.lr, run.seed), {})[run.bn] = rows
    pairs = {place: of_both for place, of_both in sorted(by_place.items()) if len(of_both) == 2}
    if not pairs:
        return None
    lowest_lr, _ = next(iter(pairs))
    medians = []
    for (lr, _), of_both in pairs.items():
        if lr == lowest_lr:
            known = [of_both[bn][of_both[bn]["epoch"].isin(of_both[not bn]["epoch"])] for bn in (True, False)]
            medians.append([float(rows["cosine"].median()) for rows in known])
    with_bn, without = pd.DataFrame(medians).mean()
    return difference([one - other for one, other in medians]), float(with_bn), float(without)


def _shifts(run: LandscapeRun) -> pd.DataFrame | None:
    """Read the rows above the lowest layer that `cifar-lab landscape covariate-shift` wrote next to a run.

    Looks in the folder `landscape` next to the run, then next to the run itself.
    """
    folder = run.record.folder
    file = "covariate_shift.csv"
    for path in [] if folder is None else [folder.parent / "landscape" / file, folder.parent / file]:
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError):  # missing or damaged
            continue
        if folder is not None and set(table.columns) >= {"run", "epoch", "layer", "cosine"}:
            own = table["run"].map(lambda label: Path(str(label)).name == folder.resolve().name)
            rows = table[own & (table["layer"] > table["layer"].min())]
            if rows["cosine"].notna().any():
                return rows
    return None
