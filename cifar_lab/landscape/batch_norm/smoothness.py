"""The paper's figure: change of loss and gradient along the gradient, with and without BatchNorm.

Probes are compared at the same seeds and steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cifar_lab.landscape.batch_norm import figures
from cifar_lab.landscape.batch_norm.numbers import Estimate, Outputs, difference, ratio
from cifar_lab.landscape.batch_norm.runs import INITS, NAMES, Group, LandscapeRun, the_group
from cifar_lab.landscape.maths.smoothness import PAPER_MULTIPLES, has_grid, smoothness
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run
from cifar_lab.table.records import gather

_RATIOS = {
    "loss_range": "loss variation",
    "gradient_range": "gradient predictiveness",
    "grad_norm": "||g||",
    "moved_grad_norm": "largest ||g'||",
    "hessian_norm": "||Hg||/||g||",
    "beta": "largest beta",
}


class Arm(NamedTuple):
    """A network and its initialisation."""

    bn: bool
    init: str

    @property
    def name(self) -> str:
        """Label such as `with BatchNorm, Xavier`."""
        return f"{NAMES[self.bn]}, {INITS.get(self.init, self.init)}"


class Probed(NamedTuple):
    """The probes of a run."""

    probes: Mapping[str, np.ndarray]  # arrays of `probes.npz`
    grid: pd.DataFrame  # quantities over the step sizes of the three panels
    fine: pd.DataFrame  # quantities over all step sizes


@dataclass(frozen=True)
class SmoothnessComparison:
    """Probes of all arms at one learning rate."""

    title: str
    lr: float
    grid: str  # label of the step sizes of the three panels
    arms: Mapping[Arm, Mapping[int, Probed]]  # by arm, then by seed; with BatchNorm first
    lost_runs: Mapping[Arm, Sequence[LandscapeRun]]  # diverged runs by arm, excluded from the comparison

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per run: medians over its probes, and the share of probes at the ceiling."""
        return pd.DataFrame(
            [
                {"bn": arm.bn, "init": arm.init, "seed": seed, **_medians(probed)}
                for arm, of_seeds in self.arms.items()
                for seed, probed in of_seeds.items()
            ]
        )

    @cached_property
    def ratios(self) -> pd.DataFrame:
        """One row per initialisation and quantity: ratio without over with BatchNorm, on paired seeds and steps."""
        rows = []
        for init in self.inits:
            for quantity in (*_RATIOS, *self.relative_quantities):
                ratio = self.ratio(init, quantity)
                rows.append((init, quantity, ratio.value, *(ratio.interval or (np.nan, np.nan)), ratio.seeds))
        return pd.DataFrame(rows, columns=["init", "quantity", "ratio", "low", "high", "seeds"])

    @cached_property
    def inits(self) -> list[str]:
        """Initialisations for which both networks have a run with the same seed."""
        return [arm.init for arm in self.arms if arm.bn and self.paired(arm.init)]

    @cached_property
    def relative_quantities(self) -> list[str]:
        """Names of the columns `change_at_...` (gradient change at a relative distance) that all runs have."""
        grids = [probed.grid for of_seeds in self.arms.values() for probed in of_seeds.values()]
        return [str(name) for name in grids[0].filter(like="change_at_") if all(name in grid for grid in grids)]

    def paired(self, init: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """Return for each common seed the grids with and without BatchNorm, at the steps that both have."""
        with_bn, without = (self.arms.get(Arm(bn, init), {}) for bn in (True, False))
        seeds = sorted(with_bn.keys() & without.keys())
        return [with_bn[seed].grid.align(without[seed].grid, join="inner", axis=0) for seed in seeds]

    def ratio(self, init: str, quantity: str) -> Estimate:
        """Return the ratio of a quantity without over with BatchNorm: median over steps, geometric mean over seeds."""
        pairs = self.paired(init)
        return ratio([(without[quantity] / with_bn[quantity]).median() for with_bn, without in pairs])

    def cosine_gain(self, init: str) -> Estimate:
        """Return the gain of cos(g, g') at eta = lr with BatchNorm: median over steps, mean over seeds."""
        return difference([(with_bn["cosine"] - without["cosine"]).median() for with_bn, without in self.paired(init)])

    def mean(self, bn: bool, init: str, name: str) -> float:
        """Return the mean of a column of `frame` over the seeds of an arm."""
        rows = self.frame[(self.frame["bn"] == bn) & (self.frame["init"] == init)]
        return float(rows[name].mean())

    def lost(self, init: str) -> tuple[float, list[int]]:
        """Return the share of probes where BatchNorm's loss variation is larger, and their steps in the first seed."""
        larger = [with_bn["loss_range"] > without["loss_range"] for with_bn, without in self.paired(init)]
        return float(np.mean([of_steps.mean() for of_steps in larger])), larger[0].index[larger[0]].tolist()

    @cached_property
    def sentences(self) -> list[str]:
        """Results in sentences, including where BatchNorm loses."""
        sentences = [
            f"{self.title}. Step sizes: {self.grid}; ratios are medians over the probed steps, without over with "
            "BatchNorm."
        ]
        for init in self.inits:
            name = INITS.get(init, init)
            ratios = ", ".join(f"{words} {self.ratio(init, quantity).text()}" for quantity, words in _RATIOS.items())
            at_ceiling = [f"{100 * self.mean(bn, init, 'share_at_ceiling'):.3g} %" for bn in (True, False)]
            cosines = [f"{self.mean(bn, init, 'cosine'):.3g}" for bn in (True, False)]
            share, steps = self.lost(init)
            sentences += [
                f"{name}: ratios of {ratios}. Beta is at the ceiling 1/eta_min of its grid, where it says nothing "
                f"about the network, in {at_ceiling[0]} of the probes with BatchNorm and {at_ceiling[1]} without.",
                f"{name}: cos(g, g') at eta = lr {cosines[0]} with BatchNorm, {cosines[1]} without.",
                f"{name}: BatchNorm's loss variation is the larger one in {100 * share:.3g} % of the probes"
                + (f", first at steps {_first(steps)}." if steps else "."),
            ]
        for arm, runs in self.lost_runs.items():
            number = len(runs) + len(self.arms.get(arm, ()))
            diverged = f"{NAMES[arm.bn]}, {len(runs)} of {number} runs diverged and are not compared."
            sentences.append(f"{INITS.get(arm.init, arm.init)}: {diverged}")
        return sentences


def compare(group: Group, lr: float) -> SmoothnessComparison:
    """Compare the probes of a group's runs at one learning rate.

    Raises:
        ValueError: No initialisation has a seed with probes of both networks.
    """
    by_arm: dict[Arm, dict[int, Mapping[str, np.ndarray]]] = {}
    lost: dict[Arm, list[LandscapeRun]] = {}
    compared = []
    for run in probed_runs(group):
        if run.lr != lr:
            continue
        if run.record.state == "diverged":  # its probes measure a loss that grows without bound
            lost.setdefault(Arm(run.bn, run.init), []).append(run)
        elif (probes := run.record.probes) is not None and np.isfinite(probes["loss"]).any():
            by_arm.setdefault(Arm(run.bn, run.init), {})[run.seed] = probes
            compared.append(run)
    has_paper_grid = all(has_grid(probes, PAPER_MULTIPLES) for probed in by_arm.values() for probes in probed.values())
    grid, words = (PAPER_MULTIPLES, "0.5, 1, 2, 4 x lr") if has_paper_grid else (None, "all probed")
    arms = {
        arm: {seed: Probed(each, smoothness(each, grid), smoothness(each)) for seed, each in by_arm[arm].items()}
        for arm in sorted(by_arm, key=lambda arm: (arm.init != "xavier", arm.init, not arm.bn))
    }
    title = f"{group.title(compared)}; learning rate {lr:g}" if compared else ""
    comparison = SmoothnessComparison(title, lr, words, arms, lost)
    if not comparison.inits:
        raise UsageError(
            "smoothness needs probes of runs with bn=true and bn=false, with the same seed, learning rate and "
            "initialisation; run study=bn_smoothness, or train with probe=gradient"
        )
    return comparison


def probed_runs(group: Group) -> list[LandscapeRun]:
    """Return the runs of a group that have probes."""
    return [run for run in group.runs if run.record.probes is not None]


def write_smoothness(runs: Iterable[Run], output: Path | None) -> Outputs:
    """Print the comparison of the probes, and write its figure and numbers to `output` unless it is None.

    Writes for each learning rate `smoothness.png`, `smoothness.npz` (the quantities of every probe), `smoothness.csv`
    (one row per run) and `smoothness_ratios.csv`. With several rates, file names end in the rate.

    Raises:
        ValueError: One network has no probes, or the runs differ in more than `the_group` allows.
        OSError: The folder cannot be written.
    """
    group = the_group(gather(runs))
    rates = sorted({run.lr for run in probed_runs(group)}) or [group.runs[0].lr]
    outputs = Outputs([], {}, [])
    for comparison in [compare(group, rate) for rate in rates]:
        end = f"_lr_{comparison.lr:g}" if len(rates) > 1 else ""
        tables = {f"smoothness{end}": comparison.frame, f"smoothness_ratios{end}": comparison.ratios}
        draw = partial(figures.smoothness, comparison)
        outputs.add(output, f"smoothness{end}", draw, comparison.sentences, tables, _arrays(comparison))
    return outputs


def _medians(probed: Probed) -> dict[str, float]:
    grid, fine = probed.grid, probed.fine
    names = ["loss_range", "gradient_range", "grad_norm", "moved_grad_norm", "hessian_norm", "sharpness"]
    names += ["cosine", "beta", "ceiling"]
    return {
        "probes": len(grid),
        **grid[names].median(),
        "share_at_ceiling": grid["at_ceiling"].mean(),
        "fine_beta": fine["beta"].median(),
        "fine_ceiling": fine["ceiling"].median(),
        "fine_share_at_ceiling": fine["at_ceiling"].mean(),
        **grid.filter(like="change_at_").median(),
        "seconds": float(probed.probes["seconds"].sum()),
    }


def _first(steps: list[int]) -> str:
    first = ", ".join(f"{step:,}" for step in steps[:5])
    return f"{first} and {len(steps) - 5} more" if len(steps) > 5 else first


def _arrays(comparison: SmoothnessComparison) -> dict[str, np.ndarray]:
    return {
        f"{'bn' if arm.bn else 'none'}_{arm.init}_seed_{seed}_{name}": values.to_numpy()
        for arm, of_seeds in comparison.arms.items()
        for seed, probed in of_seeds.items()
        for name, values in probed.grid.loc[:, :"sharpness"].reset_index().items()  # ranges can be derived from these
    }
