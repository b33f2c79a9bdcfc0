"""Figures of runs; only this module and its neighbours, `landscape_*.py` and `*_figures.py`, use matplotlib."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Colour = tuple[float, float, float, float]
TRAIN_COLOUR, VAL_COLOUR = "#4c72b0", "#dd8452"
_PHASES = ("#9467bd", "#4c72b0", "#55a868", "#dd8452", "0.6")  # data, forward, backward, optimizer, framework
_MOST_LABELLED = 20  # classes; the numbers of more would overlap, and take many seconds to lay out


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """How often images of each class were taken for each class, as counts and as percent of the true class.

    With more classes than `_MOST_LABELLED` the colours alone say so.

    Args:
        counts: `(C, C)`, true classes in rows.
        classes: Their names.
        title: What was tested.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    cells = np.ndindex(*counts.shape) if len(classes) <= _MOST_LABELLED else ()
    for row, column in cells:
        colour = "white" if shares[row, column] > 0.5 else "black" if counts[row, column] else "0.7"
        text = f"{counts[row, column]:,}\n{shares[row, column]:.1%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
    ticks = np.arange(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(wrapped(title, 80), fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1), label="share of the true class")
    return figure


def confusion_matrices(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Several confusion matrices beside each other, in percent of the true class.

    Args:
        counts: `(C, C)` each, true classes in rows, by what was tested.
        classes: Their names.
    """
    columns = min(3, len(counts))
    rows = -(-len(counts) // columns)
    figure = Figure(figsize=(0.6 + 3.8 * columns, 4.1 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    ticks = np.arange(len(classes))
    for axes in grid[len(counts) :]:
        axes.remove()
    for axes, (name, matrix) in zip(grid, counts.items(), strict=False):
        percents = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(percents, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.ndindex(*matrix.shape) if len(classes) <= _MOST_LABELLED else ():
            percent = percents[row, column]
            shade = "white" if percent > 50 else "black" if percent >= 0.5 else "0.75"
            axes.text(column, row, f"{percent:.0f}", ha="center", va="center", fontsize=6.5, color=shade)
        axes.set_xticks(ticks, classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
        axes.set_yticks(ticks, classes, fontsize=7)
        axes.set_title(wrapped(name, 44), fontsize=9)
    figure.supxlabel("predicted class", fontsize=9)
    figure.supylabel("true class", fontsize=9)
    return figure


def colours(count: int) -> list[Colour]:
    """Colours to tell `count` compositions apart."""
    shades = colormaps["tab10"](np.arange(10)) if count <= 10 else colormaps["turbo"](np.linspace(0.05, 0.95, count))
    return [tuple(shade) for shade in shades[:count]]


def loop_speeds(speeds: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str) -> Figure:
    """A panel for each network: images per second of each loop over its rounds, and where its steps' time goes.

    Args:
        speeds: By the network, then by the loop's name: `images_per_second`, the lowest and highest round's (`_low`,
            `_high`), `ratio_to_report`, `ratio_to_best` and `shares` by phase.
        title: Of the machine.
    """
    heights = [len(loops) for loops in speeds.values()]
    figure = Figure(figsize=(9, 1.2 + sum(0.42 * height + 0.8 for height in heights)), layout="constrained")
    figure.suptitle(wrapped(title, 110), fontsize=9)
    panels = figure.subplots(len(speeds), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (network, loops) in zip(panels, speeds.items(), strict=True):
        rows = np.arange(len(loops))
        for row, measured in zip(rows, loops.values(), strict=True):
            left, speed = 0.0, measured["images_per_second"]
            for shade, (phase, share) in enumerate(measured["shares"].items()):
                axes.barh(
                    row, share * speed, left=left, height=0.7, color=_PHASES[shade], label=phase if not row else None
                )
                left += share * speed
            low, high = measured["images_per_second_low"], measured["images_per_second_high"]
            axes.errorbar(speed, row, xerr=[[speed - low], [high - speed]], fmt="none", ecolor="0.15", capsize=3)
            ratios = {"report": measured["ratio_to_report"], "best": measured["ratio_to_best"]}
            words = "".join(f", {ratio:.2f} x {name}" for name, ratio in ratios.items() if ratio is not None)
            axes.text(max(high, left), row, f"   {speed:,.0f}{words}", va="center", fontsize=8)
        fastest = max(measured["images_per_second_high"] for measured in loops.values())
        axes.set_yticks(rows, list(loops), fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.35 * fastest)
        axes.set_title(network, fontsize=9)
    panels[-1].set_xlabel("training images per second: median, lowest and highest round; colours: shares of a step")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    return figure


def wrapped(title: str, width: int) -> str:
    """Its lines, none longer than `width` letters."""
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())


def epoch_axis(axes: Axes) -> None:
    """Label the x axis with whole epochs, and draw a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
