"""Figures of BatchNorm's study: the bands, and the probes."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lab.figures import wrapped
from cifar_lab.landscape.batch_norm.probes import Probed, SmoothnessComparison
from cifar_lab.landscape.maths.bands import SMALLEST_LOSS, Band
from cifar_lab.landscape.maths.smoothness import median_of

# With BatchNorm blue, without orange, which all eyes tell apart; a lighter pair for each further initialisation.
_COLOURS = (("#0072b2", "#d55e00"), ("#56b4e9", "#e69f00"), ("#009e73", "#cc79a7"))
_MOST_POINTS = 400  # of a line; more cannot be told apart on a page, and make its file large
_SMOOTHED_PROBES = 5


class Line(NamedTuple):
    """How an arm is drawn."""

    colour: str
    style: str


def bands(of_networks: Mapping[str, Sequence[Band]], steps_per_epoch: int, title: str) -> Figure:
    """The band of each network on the same logarithmic axis, and underneath how wide it is.

    Args:
        of_networks: A band for each seed, all with as many steps, by the network's name; with BatchNorm first.
        steps_per_epoch: Optimizer steps in an epoch.
        title: What was trained.
    """
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    figure.suptitle(wrapped(title, 110), fontsize=10)
    loss_axes, width_axes = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    together = 1
    for colour, (name, of_seeds) in zip(_COLOURS[0], of_networks.items(), strict=True):
        low, high = (np.stack([getattr(one, edge) for one in of_seeds]) for edge in ("low", "high"))
        together = -(-low.shape[1] // _MOST_POINTS)
        epochs, shown_low = _thinned(low.mean(axis=0), together, steps_per_epoch)
        _, shown_high = _thinned(high.mean(axis=0), together, steps_per_epoch)
        shown_low, shown_high = (np.maximum(values, SMALLEST_LOSS) for values in (shown_low, shown_high))
        loss_axes.fill_between(epochs, shown_low, shown_high, color=colour, alpha=0.35, lw=0, label=name)
        for values in (shown_low, shown_high):
            loss_axes.plot(epochs, values, color=colour, lw=0.9)
        widths = np.stack([_thinned(one, together, steps_per_epoch)[1] for one in high - low])
        _over_seeds(width_axes, epochs, widths, Line(colour, "-"), name)
    loss_axes.set_ylabel("training loss of a step's batch:\nlowest to highest over the learning rates")
    width_axes.set_ylabel("width of the band")
    for axes in (loss_axes, width_axes):
        _log(axes)
        axes.grid(alpha=0.3)
    loss_axes.legend()
    width_axes.set_xlabel(f"epoch ({_note(together, max(map(len, of_networks.values())))})")
    width_axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def smoothness(comparison: SmoothnessComparison) -> Figure:
    """The paper's three panels, and those that tell the network's numbers from the grid's."""
    figure = Figure(figsize=(15, 7.6), layout="constrained")
    panels = figure.subplots(2, 4)
    (loss, gradient, beta, cosine), (hessian, fine, change, turned) = panels
    inits = list(dict.fromkeys(arm.init for arm in comparison.arms))
    together = 1
    for arm, of_seeds in comparison.arms.items():
        place, seeds = inits.index(arm.init) % 3, list(of_seeds.values())
        line = Line(_COLOURS[place][0 if arm.bn else 1], ("-", "--", "-.")[place])
        steps = _over_steps((loss, gradient, beta, cosine, hessian), seeds, line, arm.name)
        _over_distances((fine, change, turned), [one.probes for one in seeds], line)
        together = _SMOOTHED_PROBES if steps > 4 * _SMOOTHED_PROBES else together
    note = _note(together, max(map(len, comparison.arms.values())), "probes")
    figure.suptitle(f"{wrapped(comparison.title, 150)}\n{note}", fontsize=10)
    _ceilings(beta, fine, comparison)
    grid = comparison.grid
    _entitle(loss, f"Loss variation\nL(w − ηg), lowest to highest, {grid}", log=True)
    _entitle(gradient, f"Gradient predictiveness\n‖g − g'‖, lowest to highest, {grid}", log=True)
    _entitle(beta, f"Effective β-smoothness\nlargest ‖g − g'‖ / (η‖g‖), {grid}", log=True)
    _entitle(cosine, "Direction of the gradient\ncos(g, g') at η = learning rate")
    _entitle(hessian, "The limit of β for η → 0\n‖Hg‖ / ‖g‖, exact", log=True)
    _entitle(fine, "β by step size\nmedian over probes", "η, in learning rates", log=True)
    _entitle(change, "Change of the gradient by distance\n‖g − g'‖ / ‖g‖, median", "‖δ‖ / ‖w‖", log=True)
    _entitle(turned, "Direction by distance\ncos(g, g'), median", "‖δ‖ / ‖w‖")
    for axes in (fine, change, turned):
        axes.set_xscale("log")
    for axes in (cosine, turned):
        axes.axhline(0, color="0.6", lw=0.8)
    handles, names = hessian.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _over_steps(panels: Sequence[Axes], seeds: Sequence[Probed], line: Line, name: str) -> int:
    """Draw an arm's ranges and numbers at the steps that all seeds have; returns how many those are."""
    step = reduce(np.intersect1d, [one.grid.step for one in seeds])
    grids = [one.at(step).grid for one in seeds]

    def smoothed(quantity: str) -> np.ndarray:
        return _smoothed(np.stack([getattr(grid, quantity) for grid in grids]))

    for axes, quantity in zip(panels[:2], ("loss", "gradient"), strict=True):
        low, high = (np.median(smoothed(f"{quantity}_{edge}"), axis=0) for edge in ("low", "high"))
        axes.fill_between(step, low, high, color=line.colour, alpha=0.2, lw=0)
        for values in (low, high):
            axes.plot(step, values, color=line.colour, ls=line.style, lw=0.9)
    for axes, quantity in zip(panels[2:], ("beta", "cosine", "hessian_norm"), strict=True):
        _over_seeds(axes, step, smoothed(quantity), line, name)
    return len(step)


def _over_distances(panels: Sequence[Axes], probes: Sequence[Mapping[str, np.ndarray]], line: Line) -> None:
    """Draw an arm's medians over all probes by the step size, and by the relative distance as far as it has any."""
    multiples = _multiples(probes)
    quotients = np.concatenate([one["beta"] for one in probes if one["beta"].shape[1] == len(multiples)])
    lines = [(multiples, _median(quotients))]
    distances = probes[0].get("relative_distance", np.zeros(0))
    if len(distances):
        alike = [one for one in probes if np.array_equal(one.get("relative_distance", ()), distances)]
        change = np.concatenate([one["relative_grad_distance"] / one["grad_norm"][:, None] for one in alike])
        cosine = np.concatenate([one["relative_grad_cosine"] for one in alike])
        lines += [(distances, _median(change)), (distances, np.array([median_of(column) for column in cosine.T]))]
    for axes, (x, values) in zip(panels, lines, strict=False):
        axes.plot(x, values, "o", ms=3, ls=line.style, color=line.colour)


def _multiples(probes: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """The step sizes of the first probe, in learning rates."""
    return probes[0]["eta"][0] / probes[0]["lr"][0]


def _median(values: np.ndarray) -> np.ndarray:
    """Over the first axis; NaN counts as infinitely far."""
    return np.median(np.where(np.isnan(values), np.inf, values), axis=0)


def _ceilings(beta: Axes, fine: Axes, comparison: SmoothnessComparison) -> None:
    """The line 1/eta_min, which depends on no network, and 1/eta over the finer grid."""
    arms = [list(of_seeds.values()) for of_seeds in comparison.arms.values()]
    for ceiling in sorted({float(seeds[0].grid.ceiling[0]) for seeds in arms}):
        drawn = beta.axhline(ceiling, color="0.3", lw=1, ls=":", label=f"1/η_min = {ceiling:g}")
        beta.legend(handles=[drawn], fontsize=7)
    multiples = np.unique(np.concatenate([_multiples([one.probes for one in seeds]) for seeds in arms]))
    fine.plot(multiples, 1 / (comparison.lr * multiples), color="0.3", lw=1, ls=":", label="1/η")
    fine.legend(fontsize=7)


def _over_seeds(axes: Axes, x: np.ndarray, values: np.ndarray, line: Line, name: str) -> None:
    """The median over seeds, and from two on their range."""
    axes.plot(x, np.median(values, axis=0), color=line.colour, ls=line.style, lw=1.2, label=name)
    if len(values) > 1:
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=line.colour, alpha=0.15, lw=0)


def _thinned(values: np.ndarray, together: int, steps_per_epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of so many steps together, and where in epochs their middles are."""
    starts = np.arange(0, len(values), together)
    counts = np.diff([*starts, len(values)])
    return (starts + counts / 2) / steps_per_epoch, np.add.reduceat(values, starts) / counts


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The running median of some probes, where there are many; `(seeds, P)`."""
    if values.shape[1] <= 4 * _SMOOTHED_PROBES:
        return values
    padded = np.pad(values, ((0, 0), (_SMOOTHED_PROBES // 2,) * 2), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED_PROBES, axis=1), axis=2)


def _note(together: int, seeds: int, what: str = "steps") -> str:
    """What is done for display alone."""
    kind = "running median" if what == "probes" else "mean"
    smoothed = [f"drawn is the {kind} of {together} {what}, the numbers are of every one"] if together > 1 else []
    spread = [
        f"{seeds} seeds: median and range" if what == "probes" else f"{seeds} seeds: mean; widths median and range"
    ]
    return "; ".join(smoothed + (spread if seeds > 1 else ["one seed"]))


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
        """2 and 5 too, where fewer than two powers of ten would be told."""
        low, high = axes.get_ylim()
        return f"{value:g}" if high < 50 * low and f"{value:e}"[0] in "25" else ""

    axes.yaxis.set_minor_formatter(between)
