"""Figures of compared runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_lab.figures import Colour, epoch_axis, wrapped

_LINES, _MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v")


def compared_curves(
    runs: Mapping[str, Sequence[pd.DataFrame]],
    colours: Mapping[str, Colour],
    title: str,
    val_label: str,
    *,
    has_one_loss: bool = True,
) -> Figure:
    """Draw training loss and validation accuracy over epochs, as the mean over the seeds of each composition.

    Args:
        runs: Metrics of each run, a row per epoch, by composition name. A band shows the range over seeds.
        colours: Colours by composition name.
        title: Title of the figure.
        val_label: Label of the images of `val/*`.
        has_one_loss: Whether all runs train with the same loss. If not, the training accuracy is drawn instead, because
            values of different losses are not comparable.
    """
    figure = Figure(figsize=(11, 4.6 + 0.1 * len(runs)), layout="constrained")
    figure.suptitle(wrapped(title, 120), fontsize=10)
    training_axes, accuracy_axes = figure.subplots(1, 2)
    pooled = {name: pd.concat(metrics) for name, metrics in runs.items()}
    last = max(int(frame["epoch"].max()) for frame in pooled.values())
    trained = "train/loss" if has_one_loss else "train/acc"
    for axes, quantity in ((training_axes, trained), (accuracy_axes, "val/acc")):
        for number, (name, frame) in enumerate(pooled.items()):
            epochs = frame[frame[quantity].notna()].groupby("epoch")[quantity]
            low, mean, high = epochs.min(), epochs.mean(), epochs.max()
            style = {"color": colours[name], "ls": _LINES[number % 4], "marker": _MARKERS[number % 5]}
            # A single epoch makes no visible line or band, so the compositions are drawn next to each other.
            at = mean.index + (0.0 if last > 1 else (number + 0.5) / len(runs) - 0.5)
            every = max(1, len(at) // 12)  # dense markers would hide the line
            axes.plot(at, mean, ms=4 if last > 1 else 6, lw=1.5, markevery=every, label=name, **style)
            if len(runs[name]) > 1 and last > 1:
                axes.fill_between(at, low, high, color=colours[name], alpha=0.15, lw=0)
            elif len(runs[name]) > 1:
                axes.vlines(at, low, high, color=colours[name], alpha=0.5)
        epoch_axis(axes)
        if last == 1:
            axes.set_xticks([1])
            axes.set_xlim(0.4, 1.6)
    training_axes.set_ylabel("training loss, mean over images" if has_one_loss else "training accuracy")
    accuracy_axes.set_ylabel(f"{val_label} accuracy")
    for axes in (accuracy_axes,) if has_one_loss else (training_axes, accuracy_axes):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    handles, names = training_axes.get_legend_handles_labels()
    if names:  # a single composition may have no label
        columns = max(1, min(4, 110 // (max(map(len, names)) + 6)))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def compared_accuracies(
    accuracies: Mapping[str, np.ndarray],
    intervals: np.ndarray,
    colours: Mapping[str, Colour],
    title: str,
    note: str,
) -> Figure:
    """Draw a bar with its interval for each composition, and a dot for each run.

    Args:
        accuracies: Accuracy of each run, `(n,)`, from 0 to 1, by composition name.
        intervals: `(compositions, 2)`, lower and upper bounds.
        colours: Colours by composition name.
        title: Title of the figure.
        note: Explanation of the intervals.
    """
    figure = Figure(figsize=(8.5, 1.5 + 0.42 * len(accuracies)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(accuracies))
    means = np.array([values.mean() for values in accuracies.values()])
    highest = np.maximum(intervals[:, 1], [values.max() for values in accuracies.values()])
    lowest = min(intervals.min(), min(values.min() for values in accuracies.values()))
    start = 0.0 if lowest < 0.5 else np.floor(20 * lowest - 0.5) / 20
    axes.barh(rows, means - start, left=start, color=[colours[name] for name in accuracies], alpha=0.55, height=0.7)
    errors = np.abs(intervals.T - means)
    axes.errorbar(means, rows, xerr=errors, fmt="none", ecolor="0.15", elinewidth=1.3, capsize=4)
    for row, values in enumerate(accuracies.values()):
        axes.plot(values, np.full(len(values), row), "o", ms=4, color="white", mec="0.15", mew=0.9, zorder=3)
        axes.text(highest[row], row, f"   {means[row]:.2%}", va="center", fontsize=8)
    axes.set_yticks(rows, [wrapped(name, 44) for name in accuracies], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(start, highest.max() + 0.14 * (highest.max() - start))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel(
        "test accuracy" + (f" (the axis starts at {start:.0%})" if start else "") + f"\n{wrapped(note, 75)}",
        fontsize=9,
    )
    axes.set_title(wrapped(title, 100), fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    return figure
