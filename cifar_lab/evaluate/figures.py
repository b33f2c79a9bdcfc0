"""Figures of an evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR, wrapped

_COLUMNS = 8
_MOST_LABELLED = 20  # classes; with more, labels overlap and take many seconds to lay out


def reliability(panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw reliability diagrams (arXiv:1706.04599, figure 1): accuracy and share of images by confidence.

    Args:
        panels: Mean confidence, accuracy (NaN for an empty bin) and count per bin, `(bins,)`, by panel title.
        title: Title of the figure.
    """
    figure = Figure(figsize=(4.6 * len(panels), 5.4), layout="constrained")
    figure.suptitle(wrapped(title, 90), fontsize=9)
    rows = figure.subplots(2, len(panels), squeeze=False, sharex=True, height_ratios=[3, 1])
    for (name, (confidence, accuracy, count)), above, below in zip(panels.items(), rows[0], rows[1], strict=True):
        bins = len(count)
        middle, width = (np.arange(bins) + 0.5) / bins, 0.92 / bins
        filled = count > 0
        above.bar(middle[filled], accuracy[filled], width, color=TRAIN_COLOUR, alpha=0.75, label="accuracy")
        above.plot([0, 1], [0, 1], color="0.4", lw=1, ls="--", label="perfect calibration")
        above.plot(confidence[filled], accuracy[filled], "o", ms=4, color=VAL_COLOUR, label="at the mean confidence")
        above.set_title(wrapped(name, 46), fontsize=9)
        above.set_ylim(0, 1)
        above.yaxis.set_major_formatter(PercentFormatter(1))
        below.bar(middle, count / count.sum(), width, color="0.6")
        below.set_ylim(0, 1)
        below.set_xlim(0, 1)
        below.xaxis.set_major_formatter(PercentFormatter(1))
        below.yaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlabel("confidence: probability of the predicted class")
    rows[0][0].set_ylabel("accuracy")
    rows[1][0].set_ylabel("share of images")
    rows[0][0].legend(fontsize=8, loc="upper left")
    return figure


def mistakes(
    images: np.ndarray, true: Sequence[str], predicted: Sequence[str], probability: np.ndarray, title: str
) -> Figure:
    """Draw images with their wrong predictions.

    Args:
        images: uint8 `(N, H, W, 3)`, N at least 1.
        true: Names of the true classes.
        predicted: Names of the predicted classes.
        probability: Probabilities of the predicted classes, `(N,)`.
        title: Title of the figure.
    """
    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(1.35 * _COLUMNS, 1.75 * rows + 0.9), layout="constrained")
    figure.suptitle(wrapped(title, 110), fontsize=9)
    grid = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, own, answer, share in zip(grid, images, true, predicted, probability, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(f"{answer} {share:.1%}\ntrue: {own}", fontsize=7.5)
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix `(C, C)` with true classes in rows, in counts and in percent of the true class.

    With more classes than `_MOST_LABELLED`, cells have a colour and no numbers.
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


def card(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix `(C, C)` in percent of the true class, for a card of 400 by 220 pixels."""
    percents = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.2, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percents, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    labels = list(classes) if len(classes) <= _MOST_LABELLED else []
    for row, column in np.ndindex(*counts.shape) if labels else ():
        percent = percents[row, column]
        shade = "white" if percent > 50 else "black" if percent >= 0.5 else "0.75"
        axes.text(column, row, f"{percent:.0f}", ha="center", va="center", fontsize=7.5, color=shade)
    axes.set_xticks(range(len(labels)), [name[:4] for name in labels], fontsize=7.5)
    axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted, in percent of the true class", fontsize=7.5, labelpad=1)
    return figure


def confusion_matrices(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Draw several confusion matrices `(C, C)`, by title, in percent of the true class."""
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
