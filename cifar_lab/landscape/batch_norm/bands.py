"""The course figure: the band of training losses over learning rates, with BatchNorm and without."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cifar_lab.figures import Figure
from cifar_lab.landscape.batch_norm import figures
from cifar_lab.landscape.batch_norm.numbers import Estimate, Written, ratio, save
from cifar_lab.landscape.batch_norm.runs import INITS, NAMES, Group, LandscapeRun, the_group
from cifar_lab.landscape.maths.bands import Band, band, epoch_means, finite_steps, share_wider
from cifar_lab.runs import Run
from cifar_lab.table.measured import gather


@dataclass(frozen=True)
class BandComparison:
    """The bands of both networks, seed by seed, over the same learning rates and steps.

    Attributes:
        title: What was trained, and how.
        rates: The learning rates, ascending.
        bands: By whether there is BatchNorm, then by the seed.
        steps_per_epoch: Optimizer steps in an epoch.
        left_out: Runs that are in no band, and why, in sentences.
    """

    title: str
    rates: tuple[float, ...]
    bands: Mapping[bool, Mapping[int, Band]]
    steps_per_epoch: int
    left_out: tuple[str, ...]

    @cached_property
    def seeds(self) -> list[int]:
        """Those that both networks have."""
        return sorted(self.bands[True])

    @cached_property
    def steps(self) -> int:
        """Which every band has."""
        return len(self.bands[True][self.seeds[0]].low)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each seed: both bands' numbers, and how they compare."""
        lines = []
        for seed in self.seeds:
            with_bn, without = self.bands[True][seed], self.bands[False][seed]
            line: dict[str, float] = {"seed": seed, "steps": self.steps}
            for name, of_network in (("bn", with_bn), ("none", without)):
                line |= {f"{name}/{quantity}": value for quantity, value in of_network.numbers().items()}
            for quantity in ("mean_width", "mean_log_width"):
                line[f"ratio/{quantity}"] = _quotient(line[f"none/{quantity}"], line[f"bn/{quantity}"])
            line["share_bn_wider"] = share_wider(with_bn, without)
            line["share_bn_wider_in_log"] = share_wider(with_bn, without, in_log=True)
            lines.append(line)
        return pd.DataFrame(lines)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row for each epoch: the mean widths of both bands over its steps, means over the seeds."""
        columns: dict[str, np.ndarray] = {}
        for bn, name in ((True, "bn"), (False, "none")):
            for quantity in ("width", "log_width"):
                found = [epoch_means(getattr(one, quantity), self.steps_per_epoch) for one in self.bands[bn].values()]
                columns[f"{name}/mean_{quantity}"] = np.mean(found, axis=0)
        frame = pd.DataFrame(columns)
        frame.insert(0, "epoch", np.arange(1, len(frame) + 1))
        return frame.assign(bn_wider=frame["bn/mean_width"] > frame["none/mean_width"])

    def band_ratio(self, *, in_log: bool = False) -> Estimate:
        """How many times as wide the band without BatchNorm is, by the mean width over the steps."""
        return ratio(self.frame[f"ratio/mean_{'log_' * in_log}width"].to_numpy())

    @cached_property
    def sentences(self) -> list[str]:
        """What was found, and where BatchNorm loses."""
        lost = self.epochs.loc[self.epochs["bn_wider"], "epoch"].tolist()
        shares = [f"{100 * self.frame[name].mean():.3g} %" for name in ("share_bn_wider", "share_bn_wider_in_log")]
        areas = [f"{self.frame[f'{name}/area'].mean():.4g}" for name in ("bn", "none")]
        widths = [f"{self.frame[f'{name}/mean_width'].mean():.3g}" for name in ("bn", "none")]
        return [
            f"{self.title}.",
            *self.left_out,
            f"Mean width of the band of the training loss over steps 1 to {self.steps:,}: {widths[0]} with BatchNorm, "
            f"{widths[1]} without, ratio {self.band_ratio().told()}; area between the curves {areas[0]} and {areas[1]} "
            f"loss times steps.",
            f"Ratio of the mean ln(max/min), which does not depend on how low the losses are: "
            f"{self.band_ratio(in_log=True).told()}.",
            f"BatchNorm's band is the wider one at {shares[0]} of the steps, in ln(max/min) at {shares[1]}; "
            + (
                f"by epoch means in epochs {_spans(lost)} of {len(self.epochs)}." if lost else "by epoch means in none."
            ),
        ]


def compare(group: Group, init: str) -> BandComparison:
    """The bands of a group's runs of one initialisation.

    A learning rate at which a run of either network diverged is in neither band, and a seed that lacks a run is not
    shown; `left_out` says both.

    Raises:
        ValueError: Both networks do not have two learning rates in common, for a seed.
    """
    runs = [run for run in group.runs if run.init == init]
    losses = {run: steps["loss"] for run in runs if (steps := run.measured.steps()) is not None and len(steps["loss"])}
    rates = {bn: {run.lr for run in losses if run.bn is bn} for bn in (True, False)}
    diverged = [run for run, loss in losses.items() if _has_diverged(run, loss)]
    common = rates[True] & rates[False]
    kept = common - {run.lr for run in diverged}
    found = {(run.bn, run.seed, run.lr): loss for run, loss in losses.items() if run.lr in kept}
    every = {run.seed for run in losses}
    seeds = {seed for seed in every if all((bn, seed, rate) in found for bn in (True, False) for rate in kept)}
    if len(kept) < 2 or not seeds:
        raise ValueError(
            "a band needs runs with bn=true and bn=false, of one seed, at the same two learning rates or more, none of "
            f"them diverged; found lr {_listed(rates[True]) or 'none'} with BatchNorm, "
            f"{_listed(rates[False]) or 'none'} without; run study=bn_landscape"
        )
    length = min(len(loss) for (_, seed, _), loss in found.items() if seed in seeds)
    bands = {
        bn: {seed: band([found[bn, seed, rate][:length] for rate in sorted(kept)]) for seed in sorted(seeds)}
        for bn in (True, False)
    }
    shown = {run: loss for run, loss in losses.items() if run.lr in kept and run.seed in seeds}
    told = _left_out(diverged, losses, (rates[True] | rates[False]) - common, every - seeds)
    told += [f"Later steps are left out: {run.described} has {length:,}." for run in _shortest(shown)]
    title = f"{group.title(shown)}; {INITS.get(init, init)}; learning rates {_listed(kept)}"
    return BandComparison(title, tuple(sorted(kept)), bands, _steps_per_epoch(shown), tuple(told))


def write_band(runs: Iterable[Run], output: Path) -> Written:
    """Write the band's figure, and its numbers beside it, and print what they say.

    For each initialisation `band.png`, `band.npz` (both bands, `(seeds, steps)`), `band.csv` (a row for each seed) and
    `band_epochs.csv`; with several their names end in the initialisation's.

    Args:
        runs: With and without BatchNorm at several learning rates, all else the same.
        output: A folder, made if it does not exist.

    Raises:
        ValueError: The runs do not make a band.
        OSError: The folder cannot be written.
    """
    group = the_group(gather(runs))
    written = Written([], {}, [])
    for init in group.inits:
        comparison = compare(group, init)
        end = f"_{init}" if len(group.inits) > 1 else ""
        tables = {f"band{end}": comparison.frame, f"band_epochs{end}": comparison.epochs}
        written.figures.append(save(output, f"band{end}", figure(comparison), tables, _arrays(comparison)))
        written.tables.update(tables)
        written.sentences.extend(comparison.sentences)
    print("\n".join(written.sentences))
    return written


def figure(comparison: BandComparison) -> Figure:
    """Both bands on the same axes, and their widths underneath."""
    bands = {NAMES[bn]: list(of_seed.values()) for bn, of_seed in comparison.bands.items()}
    return figures.bands(bands, comparison.steps_per_epoch, comparison.title)


def _arrays(comparison: BandComparison) -> dict[str, np.ndarray]:
    arrays = {"seed": np.array(comparison.seeds), "lr": np.array(comparison.rates)}
    for bn, name in ((True, "bn"), (False, "none")):
        for edge in ("low", "high"):
            of_seeds = [getattr(comparison.bands[bn][seed], edge) for seed in comparison.seeds]
            arrays[f"{name}_{edge}"] = np.stack(of_seeds).astype(np.float32)
    return arrays


def _left_out(
    diverged: Sequence[LandscapeRun], losses: Mapping[LandscapeRun, np.ndarray], alone: set[float], seeds: set[int]
) -> list[str]:
    told = [
        f"Left out of both bands: lr {run.lr:g}, since {run.described} diverged at step "
        f"{finite_steps(losses[run]) + 1:,}, where a band would have no end."
        for run in diverged
    ]
    if alone:
        told.append(f"Left out: lr {_listed(alone)}, which one of the networks has no run of.")
    if seeds:
        told.append(f"Left out: seed {_listed(seeds)}, of which a run is missing.")
    return told


def _has_diverged(run: LandscapeRun, losses: np.ndarray) -> bool:
    return run.measured.record.state == "diverged" or finite_steps(losses) < len(losses)


def _shortest(losses: Mapping[LandscapeRun, np.ndarray]) -> list[LandscapeRun]:
    """The run with the fewest steps, where not all have as many."""
    fewest = min(losses, key=lambda run: len(losses[run]))
    return [fewest] if len(losses[fewest]) < max(map(len, losses.values())) else []


def _steps_per_epoch(losses: Mapping[LandscapeRun, np.ndarray]) -> int:
    """By the epochs' rows, which say at which step they ended; without any, all steps are one."""
    for run in losses:
        metrics = run.measured.metrics
        if metrics is not None and "step" in metrics and len(metrics):
            first = metrics.iloc[0]
            return max(1, round(float(first["step"]) / float(first["epoch"])))
    return max(map(len, losses.values()))


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan") if not numerator else float("inf")


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))


def _spans(numbers: Sequence[int]) -> str:
    """`1-3, 7` of 1, 2, 3 and 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
