"""The paper's figure: how far loss and gradient change along the gradient, with BatchNorm and without."""

from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path

import numpy as np

from cifar_lab.figures import Figure
from cifar_lab.landscape.batch_norm import figures
from cifar_lab.landscape.batch_norm.numbers import Written, save
from cifar_lab.landscape.batch_norm.probes import Arm, Probed, SmoothnessComparison, compare, probed_runs
from cifar_lab.landscape.batch_norm.runs import the_group
from cifar_lab.landscape.maths.smoothness import median_of
from cifar_lab.runs import Run
from cifar_lab.table.measured import gather


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
    for rate in rates:
        comparison = compare(group, rate)
        end = f"_lr_{rate:g}" if len(rates) > 1 else ""
        tables = {f"smoothness{end}": comparison.frame, f"smoothness_ratios{end}": comparison.ratios}
        written.figures.append(save(output, f"smoothness{end}", figure(comparison), tables, _arrays(comparison)))
        written.tables.update(tables)
        written.sentences.extend(comparison.sentences)
    print("\n".join(written.sentences))
    return written


def figure(comparison: SmoothnessComparison) -> Figure:
    """The paper's three panels, the cosine, the Hessian limit, and the finer and the relative grid."""
    inits = list(dict.fromkeys(arm.init for arm in comparison.arms))
    drawn = {arm.name: _drawn(arm, of_seeds, inits.index(arm.init)) for arm, of_seeds in comparison.arms.items()}
    return figures.smoothness(drawn, comparison.lr, comparison.grid, comparison.title)


def _drawn(arm: Arm, of_seeds: Mapping[int, Probed], place: int) -> figures.ProbedArm:
    seeds = list(of_seeds.values())
    step = reduce(np.intersect1d, [one.grid.step for one in seeds])
    grids = [one.at(step).grid for one in seeds]

    def rows(name: str) -> np.ndarray:
        return np.stack([getattr(grid, name) for grid in grids])

    probes = [one.probes for one in seeds]
    multiples = probes[0]["eta"][0] / probes[0]["lr"][0]
    quotients = np.concatenate([one["beta"] for one in probes if one["beta"].shape[1] == len(multiples)])
    return figures.ProbedArm(
        figures.line(arm.bn, place),
        step,
        (rows("loss_low"), rows("loss_high")),
        (rows("gradient_low"), rows("gradient_high")),
        rows("beta"),
        rows("cosine"),
        rows("hessian_norm"),
        float(seeds[0].grid.ceiling[0]),
        (multiples, _median(quotients)),
        _relative(probes),
    )


def _relative(probes: list[Mapping[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances, and medians over all probes of the change of the gradient and of its cosine there."""
    distances = probes[0].get("relative_distance", np.zeros(0))
    if not len(distances):
        return distances, distances, distances
    alike = [one for one in probes if np.array_equal(one.get("relative_distance", ()), distances)]
    change = np.concatenate([one["relative_grad_distance"] / one["grad_norm"][:, None] for one in alike])
    cosine = np.concatenate([one["relative_grad_cosine"] for one in alike])
    return distances, _median(change), np.array([median_of(column) for column in cosine.T])


def _median(values: np.ndarray) -> np.ndarray:
    """Over the first axis; NaN counts as infinitely far."""
    return np.median(np.where(np.isnan(values), np.inf, values), axis=0)


def _arrays(comparison: SmoothnessComparison) -> dict[str, np.ndarray]:
    return {
        f"{'bn' if arm.bn else 'none'}_{arm.init}_seed_{seed}_{name}": values
        for arm, of_seeds in comparison.arms.items()
        for seed, probed in of_seeds.items()
        for name, values in probed.grid._asdict().items()
    }
