"""Figures of the BatchNorm study: bands and probes."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lab.figures import AMBER, BLUE, GREEN, ORANGE, PURPLE, SKY, epoch_axis, wrapped
from cifar_lab.landscape.batch_norm.runs import NAMES
from cifar_lab.landscape.maths.bands import SMALLEST_LOSS, epoch_means

if TYPE_CHECKING:
    from cifar_lab.landscape.batch_norm.bands import BandComparison
    from cifar_lab.landscape.batch_norm.smoothness import Probed, SmoothnessComparison

# Blue with BatchNorm and orange without, distinguishable with colour blindness; a further pair per initialisation.
_COLOURS = ((BLUE, ORANGE), (SKY, AMBER), (GREEN, PURPLE))
_MOST_POINTS = 400  # per line; more are indistinguishable on a page and make its file large
_SMOOTHED_PROBES = 5


def bands(comparison: "BandComparison") -> Figure:
    """Draw the band of each network on one logarithmic axis, and its width underneath."""
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    figure.suptitle(wrapped(comparison.title, 110), fontsize=10)
    loss_axes, width_axes = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    seeds, steps = len(comparison.seeds), comparison.steps
    together = -(-steps // _MOST_POINTS)
    epochs = epoch_means(np.arange(steps) + 0.5, together) / comparison.steps_per_epoch
    for colour, (bn, band) in zip(_COLOURS[0], comparison.bands.items(), strict=True):
        edges = [np.maximum(epoch_means(one.mean(axis=0), together), SMALLEST_LOSS) for one in band]
        loss_axes.fill_between(epochs, *edges, color=colour, alpha=0.35, lw=0, label=NAMES[bn])
        loss_axes.plot(epochs, np.transpose(edges), color=colour, lw=0.9)
        _over_seeds(width_axes, epochs, epoch_means(band.width, together), {"color": colour}, NAMES[bn])
    loss_axes.set_ylabel("training loss on a step's batch:\nlowest to highest over learning rates")
    width_axes.set_ylabel("width of the band")
    epoch_axis(width_axes)
    for axes in (loss_axes, width_axes):
        _log(axes)
        axes.grid(alpha=0.3)
    loss_axes.legend()
    note = _note(f"mean of {together} steps" if together > 1 else "", seeds, "mean; widths median and range")
    width_axes.set_xlabel(f"epoch ({note})")
    return figure


def smoothness(comparison: "SmoothnessComparison") -> Figure:
    """Draw the paper's three panels, the cosine, the limit of beta, and the finer and the relative grid."""
    figure = Figure(figsize=(15, 7.6), layout="constrained")
    panels = figure.subplots(2, 4)
    (loss, gradient, beta, cosine), (hessian, fine, change, turned) = panels
    inits = list(dict.fromkeys(arm.init for arm in comparison.arms))
    longest = 0
    for arm, of_seeds in comparison.arms.items():
        place, seeds = inits.index(arm.init) % 3, list(of_seeds.values())
        style = {"color": _COLOURS[place][0 if arm.bn else 1], "ls": ("-", "--", "-.")[place]}
        steps = _over_steps((loss, gradient, beta, cosine, hessian), seeds, style, arm.name)
        _over_distances((fine, change, turned), [one.probes for one in seeds], style)
        longest = max(longest, steps)
    drawn = f"running median of {_SMOOTHED_PROBES} probes" if longest > 4 * _SMOOTHED_PROBES else ""
    note = _note(drawn, max(map(len, comparison.arms.values())), "median and range")
    figure.suptitle(f"{wrapped(comparison.title, 150)}\n{note}", fontsize=10)
    _ceilings(beta, fine, comparison)
    grid = comparison.grid
    _entitle(loss, f"Loss variation\nL(w − ηg), lowest to highest, {grid}", log=True)
    _entitle(gradient, f"Gradient predictiveness\n‖g − g'‖, lowest to highest, {grid}", log=True)
    _entitle(beta, f"Effective β-smoothness\nlargest ‖g − g'‖ / (η‖g‖), {grid}", log=True)
    _entitle(cosine, "Direction of the gradient\ncos(g, g') at η = learning rate")
    _entitle(hessian, "The limit of β for η → 0\n‖Hg‖ / ‖g‖, exact", log=True)
    _entitle(fine, "β by step size\nmedian over probes", "η / learning rate", log=True)
    _entitle(change, "Change of the gradient by distance\n‖g − g'‖ / ‖g‖, median", "‖δ‖ / ‖w‖", log=True)
    _entitle(turned, "Direction by distance\ncos(g, g'), median", "‖δ‖ / ‖w‖")
    for axes in (fine, change, turned):
        axes.set_xscale("log")
    for axes in (cosine, turned):
        axes.axhline(0, color="0.6", lw=0.8)
    handles, names = hessian.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _over_steps(panels: Sequence[Axes], seeds: "Sequence[Probed]", style: Mapping[str, Any], name: str) -> int:
    """Draw an arm's ranges and medians at the steps that all seeds have; return the number of these steps."""
    step = reduce(np.intersect1d, [one.grid.index.to_numpy() for one in seeds])

    def smoothed(quantity: str) -> np.ndarray:
        return _smoothed(np.stack([one.grid.loc[step, quantity] for one in seeds]))

    for axes, quantity in zip(panels[:2], ("loss", "gradient"), strict=True):
        low, high = (np.median(smoothed(f"{quantity}_{edge}"), axis=0) for edge in ("low", "high"))
        axes.fill_between(step, low, high, color=style["color"], alpha=0.2, lw=0)
        for values in (low, high):
            axes.plot(step, values, **style, lw=0.9)
    for axes, quantity in zip(panels[2:], ("beta", "cosine", "hessian_norm"), strict=True):
        _over_seeds(axes, step, smoothed(quantity), style, name)
    return len(step)


def _over_distances(
    panels: Sequence[Axes], probes: Sequence[Mapping[str, np.ndarray]], style: Mapping[str, Any]
) -> None:
    """Draw an arm's medians over all probes by step size and, if probed, by relative distance."""
    multiples = _multiples(probes)
    quotients = np.concatenate([one["beta"] for one in probes if one["beta"].shape[1] == len(multiples)])
    lines = [(multiples, _median(quotients))]
    distances = probes[0].get("relative_distance", np.zeros(0))
    if len(distances):
        alike = [one for one in probes if np.array_equal(one.get("relative_distance", ()), distances)]
        change = np.concatenate([one["relative_grad_distance"] / one["grad_norm"][:, None] for one in alike])
        cosine = np.concatenate([one["relative_grad_cosine"] for one in alike])
        lines += [(distances, _median(change)), (distances, pd.DataFrame(cosine).median().to_numpy())]
    for axes, (x, values) in zip(panels, lines, strict=False):
        axes.plot(x, values, "o", ms=3, **style)


def _multiples(probes: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Step sizes of the first probe, in units of the learning rate."""
    return probes[0]["eta"][0] / probes[0]["lr"][0]


def _median(values: np.ndarray) -> np.ndarray:
    """Return the median over the first axis; NaN counts as infinity."""
    return np.median(np.where(np.isnan(values), np.inf, values), axis=0)


def _ceilings(beta: Axes, fine: Axes, comparison: "SmoothnessComparison") -> None:
    """Draw the line 1/eta_min, which does not depend on the network, and 1/eta over the finer grid."""
    arms = [list(of_seeds.values()) for of_seeds in comparison.arms.values()]
    for ceiling in sorted({float(seeds[0].grid["ceiling"].iloc[0]) for seeds in arms}):
        drawn = beta.axhline(ceiling, color="0.3", lw=1, ls=":", label=f"1/η_min = {ceiling:g}")
        beta.legend(handles=[drawn], fontsize=7)
    multiples = np.unique(np.concatenate([_multiples([one.probes for one in seeds]) for seeds in arms]))
    fine.plot(multiples, 1 / (comparison.lr * multiples), color="0.3", lw=1, ls=":", label="1/η")
    fine.legend(fontsize=7)


def _over_seeds(axes: Axes, x: np.ndarray, values: np.ndarray, style: Mapping[str, Any], name: str) -> None:
    """Draw the median over seeds, with their range if there are at least two."""
    axes.plot(x, np.median(values, axis=0), **style, lw=1.2, label=name)
    if len(values) > 1:
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, lw=0)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Return the running median of `values` `(seeds, P)`, or `values` if P is small."""
    if values.shape[1] <= 4 * _SMOOTHED_PROBES:
        return values
    padded = np.pad(values, ((0, 0), (_SMOOTHED_PROBES // 2,) * 2), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED_PROBES, axis=1), axis=2)


def _note(drawn: str, seeds: int, spread: str) -> str:
    """Describe what the figure smooths for display, and the spread that it shows."""
    smoothed = f"curves show the {drawn}, the printed numbers are unsmoothed; " if drawn else ""
    return smoothed + (f"{seeds} seeds: {spread}" if seeds > 1 else "one seed")


def _entitle(axes: Axes, title: str, x: str = "step", *, log: bool = False) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.3)
    if log:
        _log(axes)


def _log(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")

    def between(value: float, _: float) -> str:
        """Label 2 and 5 too, if the axis would otherwise have fewer than two labels."""
        low, high = axes.get_ylim()
        return f"{value:g}" if high < 50 * low and f"{value:e}"[0] in "25" else ""

    axes.yaxis.set_minor_formatter(between)
