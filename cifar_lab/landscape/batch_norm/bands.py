"""The course figure: the band of training losses over learning rates, with and without BatchNorm."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from cifar_lab.landscape.batch_norm import figures
from cifar_lab.landscape.batch_norm.numbers import Estimate, Outputs, listed, ratio
from cifar_lab.landscape.batch_norm.runs import INITS, Group, LandscapeRun, the_group
from cifar_lab.landscape.maths.bands import Band, band, epoch_means, finite_steps, share_wider
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run
from cifar_lab.table.records import gather

_NETWORKS = {True: "bn", False: "none"}  # names in tables and arrays


@dataclass(frozen=True)
class BandComparison:
    """Bands of both networks for each seed, over the same learning rates and steps."""

    title: str
    init: str
    rates: Sequence[float]  # learning rates, ascending
    seeds: Sequence[int]  # seeds that both networks have, ascending
    bands: Mapping[bool, Band]  # True with BatchNorm; arrays `(seeds, steps)`
    steps_per_epoch: int
    left_out: Sequence[str]  # sentences on what the bands exclude, and why

    @property
    def steps(self) -> int:
        """Number of steps of each band."""
        return self.bands[True].low.shape[1]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per seed: the numbers of both bands and their comparison."""
        frame = pd.DataFrame({"seed": self.seeds, "steps": self.steps})
        for bn, name in _NETWORKS.items():
            frame = frame.join(pd.DataFrame(self.bands[bn].numbers()).add_prefix(f"{name}/"))
        for quantity in ("mean_width", "mean_log_width"):
            frame[f"ratio/{quantity}"] = frame[f"none/{quantity}"] / frame[f"bn/{quantity}"]
        frame["share_bn_wider"] = share_wider(self.bands[True], self.bands[False])
        frame["share_bn_wider_in_log"] = share_wider(self.bands[True], self.bands[False], in_log=True)
        return frame

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch: the widths of both bands, averaged over the epoch's steps and over seeds."""
        columns = {
            f"{name}/mean_{quantity}": epoch_means(getattr(self.bands[bn], quantity), self.steps_per_epoch).mean(axis=0)
            for bn, name in _NETWORKS.items()
            for quantity in ("width", "log_width")
        }
        frame = pd.DataFrame({"epoch": np.arange(1, len(columns["bn/mean_width"]) + 1), **columns})
        return frame.assign(bn_wider=frame["bn/mean_width"] > frame["none/mean_width"])

    def band_ratio(self, *, in_log: bool = False) -> Estimate:
        """Width of the band without BatchNorm over the width with it, both averaged over steps."""
        return ratio(self.frame[f"ratio/mean_{'log_' * in_log}width"].to_numpy())

    @cached_property
    def sentences(self) -> list[str]:
        """Results in sentences, including where BatchNorm loses."""
        mean = self.frame.mean()
        lost = _spans(self.epochs.loc[self.epochs["bn_wider"], "epoch"].tolist())
        by_epoch = f"in epochs {lost} of {len(self.epochs)}" if lost else "in none"
        return [
            f"{self.title}.",
            *self.left_out,
            f"Mean width of the band of the training loss over steps 1 to {self.steps:,}: {mean['bn/mean_width']:.3g} "
            f"with BatchNorm, {mean['none/mean_width']:.3g} without, ratio {self.band_ratio().text()}; area between "
            f"the curves {mean['bn/area']:.4g} and {mean['none/area']:.4g} loss times steps.",
            f"Ratio of the mean ln(max/min), which does not depend on how low the losses are: "
            f"{self.band_ratio(in_log=True).text()}.",
            f"BatchNorm's band is the wider one at {100 * mean['share_bn_wider']:.3g} % of the steps (in ln(max/min) "
            f"at {100 * mean['share_bn_wider_in_log']:.3g} %); by epoch means, {by_epoch}.",
        ]


def compare(group: Group, init: str) -> BandComparison:
    """Compare the bands of a group's runs with one initialisation.

    Excludes each learning rate at which a run of either network diverged, and each seed with a missing run;
    `left_out` reports both.

    Raises:
        ValueError: No seed has runs of both networks at two common learning rates.
    """
    runs = [run for run in group.runs if run.init == init]
    losses = {run: steps["loss"] for run in runs if (steps := run.record.steps) is not None and len(steps["loss"])}
    rates = {bn: {run.lr for run in losses if run.bn is bn} for bn in (True, False)}
    diverged = [run for run, loss in losses.items() if run.record.state == "diverged" or finite_steps(loss) < len(loss)]
    common = rates[True] & rates[False]
    kept = sorted(common - {run.lr for run in diverged})
    by_setting = {(run.bn, run.seed, run.lr): loss for run, loss in losses.items()}
    every = {run.seed for run in losses}
    seeds = sorted(seed for seed in every if all((bn, seed, rate) in by_setting for bn in rates for rate in kept))
    if len(kept) < 2 or not seeds:
        raise UsageError(
            "a band needs runs with bn=true and bn=false, with the same seed, at two or more common learning rates at "
            f"which none diverged; found lr {listed(rates[True]) or 'none'} with BatchNorm, "
            f"{listed(rates[False]) or 'none'} without; run study=bn_landscape"
        )
    compared = {run: loss for run, loss in losses.items() if run.lr in kept and run.seed in seeds}
    shortest = min(compared, key=lambda run: len(compared[run]))
    length = len(compared[shortest])
    bands = {}
    for bn in rates:
        of_seeds = [band([by_setting[bn, seed, rate][:length] for rate in kept]) for seed in seeds]
        bands[bn] = Band(*map(np.stack, zip(*of_seeds, strict=True)))
    sentences = [
        f"Left out of both bands: lr {run.lr:g}, because {run.described} diverged at step "
        f"{finite_steps(losses[run]) + 1:,}, where the band would be unbounded."
        for run in diverged
    ]
    if alone := (rates[True] | rates[False]) - common:
        sentences.append(f"Left out: lr {listed(alone)}, because only one of the networks has a run.")
    if missing := every.difference(seeds):
        sentences.append(f"Left out: seed {listed(missing)}, because a run is missing.")
    if length < max(map(len, compared.values())):
        sentences.append(f"Left out: later steps, because {shortest.described} has {length:,} steps.")
    title = f"{group.title(compared)}; {INITS.get(init, init)}; learning rates {listed(kept)}"
    return BandComparison(title, init, kept, seeds, bands, _steps_per_epoch(compared), sentences)


def write_band(runs: Iterable[Run], output: Path | None) -> Outputs:
    """Print the comparison of the bands, and write its figure and numbers to `output` unless it is None.

    Writes for each initialisation `band.png`, `band.npz` (both bands, `(seeds, steps)`), `band.csv` (one row per seed)
    and `band_epochs.csv`. With several initialisations, file names end in theirs.

    Raises:
        ValueError: The runs differ in more than `the_group` allows, or form no band (see `compare`).
        OSError: The folder cannot be written.
    """
    group = the_group(gather(runs))
    outputs = Outputs([], {}, [])
    for comparison in [compare(group, init) for init in group.inits]:
        end = f"_{comparison.init}" if len(group.inits) > 1 else ""
        tables = {f"band{end}": comparison.frame, f"band_epochs{end}": comparison.epochs}
        draw = partial(figures.bands, comparison)
        outputs.add(output, f"band{end}", draw, comparison.sentences, tables, _arrays(comparison))
    return outputs


def _arrays(comparison: BandComparison) -> dict[str, np.ndarray]:
    arrays = {"seed": np.array(comparison.seeds), "lr": np.array(comparison.rates)}
    for bn, name in _NETWORKS.items():
        low, high = comparison.bands[bn]
        arrays |= {f"{name}_low": low.astype(np.float32), f"{name}_high": high.astype(np.float32)}
    return arrays


def _steps_per_epoch(losses: Mapping[LandscapeRun, np.ndarray]) -> int:
    """Derive the steps per epoch from the first metrics row of a run; without metrics, all steps are one epoch."""
    for run in losses:
        metrics = run.record.metrics
        if metrics is not None and "step" in metrics and len(metrics):
            first = metrics.iloc[0]
            return max(1, round(float(first["step"]) / float(first["epoch"])))
    return max(map(len, losses.values()))


def _spans(numbers: Sequence[int]) -> str:
    """Format 1, 2, 3 and 7 as `1-3, 7`."""
    neighbours = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in pairs] for _, pairs in neighbours]
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans)
