"""How fast runs with and without BatchNorm train, at which learning rates, and how much of a gradient a step leaves."""

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
# Ten classes: a network that has learnt nothing is right in a tenth of the images.
USELESS = 0.15


class RateRange(NamedTuple):
    """The widest range of neighbouring learning rates at which every run trains."""

    tried: tuple[float, ...]  # all learning rates that were tried, ascending
    low: float | None  # the lowest of the range; None where no rate trains
    high: float | None  # the highest

    def text(self) -> str:
        """In words, with its width in decades; at an end of the rates that were tried it may be wider."""
        if self.low is None or self.high is None:
            return f"none of {listed(self.tried)} trains"
        at_least = "at least " if self.low == self.tried[0] or self.high == self.tried[-1] else ""
        decades = math.log10(self.high / self.low)
        return f"{at_least}{decades:.2g} decades ({self.low:g} to {self.high:g} of {listed(self.tried)})"


def trains(run: Record) -> bool:
    """Whether a run has ended, without diverging, above the accuracy of a network that has learnt nothing."""
    return run.is_finished and float(run.result["test/acc_final"]) >= USELESS


def rate_range(group: Group, *, bn: bool, init: str) -> RateRange:
    """At which learning rates a network trains in every seed."""
    runs = [run for run in group.runs if (run.bn, run.init) == (bn, init) and run.record.has_ended]
    tried = tuple(sorted({run.lr for run in runs}))
    good = {rate for rate in tried if all(trains(run.record) for run in runs if run.lr == rate)}
    stretches = [list(rates) for is_good, rates in itertools.groupby(tried, key=good.__contains__) if is_good]
    widest = max(stretches, key=lambda stretch: stretch[-1] / stretch[0], default=[None])
    return RateRange(tried, widest[0], widest[-1])


def speed(group: Group) -> pd.DataFrame:
    """A row for each network, initialisation and learning rate: when it reached an accuracy, medians over the seeds."""
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
    """The median with its interval; as far as runs have reached it."""
    known = [run.record.metrics for run in runs if run.record.is_finished and run.record.metrics is not None]
    reached = np.array([epochs_to(metrics, accuracy) for metrics in known])
    missing = int(np.isnan(reached).sum())
    if not len(reached):
        return "-"
    if missing:
        return "never" if missing == len(reached) else f"never in {missing} of {len(reached)} runs"
    return median(reached).text()


def cosine_gain(group: Group, init: str) -> tuple[Estimate, float, float] | None:
    """How much more of a layer's gradient is left, with BatchNorm, once the layers below it have taken their step.

    The median of cos(G, G') over layers and epochs, of the seeds that both networks have at one learning rate, the
    lowest first; the lowest layer, below which there is none, is left out.

    Returns:
        The gain with BatchNorm, and the mean of either network, with it and without; None where no seed has both.
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
    """Read the covariate shifts above the lowest layer from a run's folder, or its folder `landscape`."""
    folder = run.record.folder
    file = "covariate_shift.csv"
    for path in [] if folder is None else [folder.parent / "landscape" / file, folder.parent / file]:
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError):  # none, or a damaged one, which has measured nothing
            continue
        if folder is not None and set(table.columns) >= {"run", "epoch", "layer", "cosine"}:
            own = table["run"].map(lambda label: Path(str(label)).name == folder.resolve().name)
            rows = table[own & (table["layer"] > table["layer"].min())]
            if rows["cosine"].notna().any():
                return rows
    return None
