"""The paper's figure: how far loss and gradient change along the gradient, with BatchNorm and without."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cifar_lab.figures import Figure
from cifar_lab.landscape.batch_norm import figures
from cifar_lab.landscape.batch_norm.numbers import Written
from cifar_lab.landscape.batch_norm.probes import SmoothnessComparison, compare, probed_runs
from cifar_lab.landscape.batch_norm.runs import the_group
from cifar_lab.runs import Run
from cifar_lab.table.records import gather


def write_smoothness(runs: Iterable[Run], output: Path) -> Written:
    """Write the figure of the probes, and its numbers beside it, and print what they say.

    For each learning rate `smoothness.png`, `smoothness.npz` (the quantities of every probe), `smoothness.csv` (a row
    for each run) and `smoothness_ratios.csv`; with several rates their names end in the rate.

    Args:
        runs: With and without BatchNorm, with probes, all else but the initialisation the same.
        output: A folder, made if it does not exist.

    Raises:
        ValueError: There are not probes of both networks.
        OSError: The folder cannot be written.
    """
    group = the_group(gather(runs))
    rates = sorted({run.lr for run in probed_runs(group)}) or [group.runs[0].lr]
    written = Written([], {}, [])
    for found in [compare(group, rate) for rate in rates]:
        end = f"_lr_{found.lr:g}" if len(rates) > 1 else ""
        tables = {f"smoothness{end}": found.frame, f"smoothness_ratios{end}": found.ratios}
        written.add(output / f"smoothness{end}.png", figure(found), found.sentences, tables, _arrays(found))
    return written


def figure(comparison: SmoothnessComparison) -> Figure:
    """The paper's three panels, the cosine, the Hessian limit, and the finer and the relative grid."""
    return figures.smoothness(comparison)


def _arrays(comparison: SmoothnessComparison) -> dict[str, np.ndarray]:
    return {
        f"{'bn' if arm.bn else 'none'}_{arm.init}_seed_{seed}_{name}": values.to_numpy()
        for arm, of_seeds in comparison.arms.items()
        for seed, probed in of_seeds.items()
        for name, values in probed.grid.loc[:, :"sharpness"].reset_index().items()  # ranges follow from these
    }
