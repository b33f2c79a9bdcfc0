"""Figures of a search."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, PercentFormatter

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR, wrapped
from cifar_lab.search.trials import TrialRecord

_PRUNED_COLOUR = "0.55"
_COLUMNS = 4


def history(trials: Sequence[TrialRecord], title: str) -> Figure:
    """Draw the validation accuracy of each trial and the best so far; at least one trial has finished.

    Pruned trials are shown with the accuracy of their last epoch.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    finished = [trial for trial in trials if trial.accuracy is not None]
    numbers = [trial.number for trial in finished]
    accuracies = np.array([trial.accuracy for trial in finished], dtype=float)
    axes.plot(numbers, accuracies, "o", ms=5, color=TRAIN_COLOUR, label="finished (chosen epoch)")
    axes.step(
        [*numbers, trials[-1].number],
        np.maximum.accumulate([*accuracies, accuracies[-1]]),
        where="post",
        color=VAL_COLOUR,
        lw=1.5,
        label="best finished so far",
    )
    pruned = [trial for trial in trials if trial.state == "pruned" and trial.reports]
    if pruned:
        at = [trial.reports[trial.epoch] for trial in pruned]
        axes.plot([trial.number for trial in pruned], at, "x", color=_PRUNED_COLOUR, label="pruned (last epoch)")
    diverged = [trial.number for trial in trials if trial.state == "diverged"]
    if diverged:
        bottom = np.full(len(diverged), axes.get_ylim()[0])
        axes.plot(diverged, bottom, "v", color=_PRUNED_COLOUR, label="diverged", clip_on=False)
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (held out)")
    axes.set_title(wrapped(title, 90), fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def importance(
    importances: Mapping[str, float], trials: Sequence[TrialRecord], logarithmic: Collection[str], title: str
) -> Figure:
    """Draw the importance of each setting, and below it the accuracy of each finished trial over each setting.

    Args:
        importances: Importances by key, summing to 1; may be empty.
        trials: Trials, of which at least one has finished.
        logarithmic: Keys that were sampled on a logarithmic scale.
        title: Title of the figure.
    """
    finished = [trial for trial in trials if trial.accuracy is not None]
    keys = list(importances) or list(finished[0].values)
    columns, rows = min(_COLUMNS, len(keys)), -(-len(keys) // _COLUMNS)
    bars = 0.8 + 0.35 * len(keys) if importances else 0.0
    figure = Figure(figsize=(1 + 3 * max(2, columns), 0.6 + bars + 3 * rows), layout="constrained")
    figure.suptitle(wrapped(title, 40 * max(2, columns)), fontsize=10)
    below: Figure | SubFigure = figure
    if importances:
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[bars, 3 * rows]).flat
        _bars(above.subplots(), importances)
    panels = below.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, key in zip(panels.flat, keys, strict=False):
        _over(axes, finished, key, key in logarithmic)
    for axes in panels.flat[len(keys) :]:
        axes.set_visible(False)
    for row in panels:
        row[0].set_ylabel("validation accuracy")
    return figure


def _bars(axes: Axes, importances: Mapping[str, float]) -> None:
    rows = np.arange(len(importances))
    axes.barh(rows, list(importances.values()), color=TRAIN_COLOUR, alpha=0.75, height=0.7)
    for row, share in enumerate(importances.values()):
        axes.text(share, row, f" {share:.0%}", va="center", fontsize=8)
    axes.set_yticks(rows, list(importances), fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max(importances.values()))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel("importance: share in separating the best trials (PED-ANOVA)", fontsize=8)


def _over(axes: Axes, finished: Sequence[TrialRecord], key: str, is_logarithmic: bool) -> None:
    accuracies = np.array([trial.accuracy for trial in finished], dtype=float)
    values = [trial.values[key] for trial in finished]
    try:
        numbers = list(map(float, values))
    except ValueError:  # option names or lists
        places = sorted(set(values))
        numbers = [float(places.index(value)) for value in values]
        axes.set_xticks(range(len(places)), [wrapped(place, 14) for place in places], fontsize=8)
        axes.margins(x=0.2)
    axes.plot(numbers, accuracies, "o", ms=5, color=TRAIN_COLOUR, alpha=0.75)
    best = int(accuracies.argmax())
    axes.plot(numbers[best], accuracies[best], "o", ms=8, mfc="none", color=VAL_COLOUR, mew=2)
    if is_logarithmic:
        axes.set_xscale("log")
        # Up to 1.5 decades, label 2 and 5 too. matplotlib's default labels all nine, which would overlap.
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1.5, 1.5)))
    axes.set_xlabel(key, fontsize=9)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid(alpha=0.3)
