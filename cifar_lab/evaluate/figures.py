"""Figures of an evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR, wrapped

_COLUMNS = 8


def reliability(panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> Figure:
    """Reliability diagrams (arXiv:1706.04599, figure 1): accuracy over confidence, and how many images are where.

    Args:
        panels: Mean confidence, accuracy (NaN if a bin is empty) and count of each bin, `(bins,)`, by panel title.
        title: Of the figure.
    """
    figure = Figure(figsize=(4.6 * len(panels), 5.4), layout="constrained")
    figure.suptitle(wrapped(title, 90), fontsize=9, parse_math=False)
    rows = figure.subplots(2, len(panels), squeeze=False, sharex=True, height_ratios=[3, 1])
    for (name, (confidence, accuracy, count)), above, below in zip(panels.items(), rows[0], rows[1], strict=True):
        bins = len(count)
        middle, width = (np.arange(bins) + 0.5) / bins, 0.92 / bins
        filled = count > 0
        above.bar(middle[filled], accuracy[filled], width, color=TRAIN_COLOUR, alpha=0.75, label="accuracy")
        above.plot([0, 1], [0, 1], color="0.4", lw=1, ls="--", label="as often right as it says")
        above.plot(confidence[filled], accuracy[filled], "o", ms=4, color=VAL_COLOUR, label="at the mean confidence")
        above.set_title(wrapped(name, 46), fontsize=9)
        above.set_ylim(0, 1)
        above.yaxis.set_major_formatter(PercentFormatter(1))
        below.bar(middle, count / count.sum(), width, color="0.6")
        below.set_ylim(0, 1)
        below.set_xlim(0, 1)
        below.xaxis.set_major_formatter(PercentFormatter(1))
        below.yaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlabel("confidence: the probability of the answer")
    rows[0][0].set_ylabel("accuracy")
    rows[1][0].set_ylabel("share of images")
    rows[0][0].legend(fontsize=8, loc="upper left")
    return figure


def mistakes(
    images: np.ndarray, true: Sequence[str], predicted: Sequence[str], probability: np.ndarray, title: str
) -> Figure:
    """Images with their wrong answers.

    Args:
        images: uint8 `(N, H, W, 3)`, N at least 1.
        true: Their classes.
        predicted: The answers.
        probability: Of the answers, `(N,)`.
        title: Of the figure.
    """
    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(1.35 * _COLUMNS, 1.75 * rows + 0.9), layout="constrained")
    figure.suptitle(wrapped(title, 110), fontsize=9, parse_math=False)
    grid = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, own, given, share in zip(grid, images, true, predicted, probability, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(f"{given} {share:.1%}\nis {own}", fontsize=7.5, parse_math=False)
    return figure
