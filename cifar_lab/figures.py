"""The shared style of figures, and confusion matrices; only files called `figures.py` use matplotlib."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Colour = tuple[float, float, float, float]
TRAIN_COLOUR, VAL_COLOUR = "#4c72b0", "#dd8452"
_MOST_LABELLED = 20  # classes; the numbers of more would overlap, and take many seconds to lay out


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix `(C, C)` with true classes in rows, in counts and in percent of the true class.

    With more classes than `_MOST_LABELLED` cells have colours alone.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape) if len(classes) <= _MOST_LABELLED else ():
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
    """Several confusion matrices `(C, C)`, by the title of each, in percent of the true class."""
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


def wrapped(title: str, width: int) -> str:
    """Its lines, none longer than `width` letters."""
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())


def epoch_axis(axes: Axes) -> None:
    """Label the x axis with whole epochs, and draw a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
