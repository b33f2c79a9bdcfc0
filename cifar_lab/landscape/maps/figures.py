"""Figures of loss surfaces, of curvature, of networks between two, and of internal covariate shift."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR, colours, wrapped


def curvature(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Eigenvalues, sharpness and 2 / lr over epochs, a panel for each run with the same axis.

    Args:
        rows: With `run`, `epoch`, `eigenvalue_1`, ..., `sharpness`, `batch_sharpness` and `two_over_lr`.
        title: Of the whole.
    """
    frame = pd.DataFrame(rows)
    runs = list(frame.groupby("run", sort=False))
    figure = Figure(figsize=(1.5 + 4.6 * len(runs), 4.9), layout="constrained")
    figure.suptitle(_wrapped(title, 25 + 60 * len(runs)), fontsize=9)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    eigenvalues = [name for name in frame if str(name).startswith("eigenvalue_")]
    for axes, (label, part) in zip(panels, runs, strict=True):
        for number, name in enumerate(eigenvalues):
            told = "largest eigenvalue" if not number else f"the next {len(eigenvalues) - 1}" if number == 1 else None
            style = {"ls": "-", "ms": 6} if not number else {"ls": "", "ms": 3.5, "alpha": 0.6}
            axes.plot(part["epoch"], part[name], marker="o", color=TRAIN_COLOUR, label=told, **style)
        axes.plot(
            part["epoch"], part["sharpness"], "s--", ms=5, color="#55a868", label="g'Hg / ||g||², all images at once"
        )
        axes.plot(
            part["epoch"], part["batch_sharpness"], "^:", ms=5, color=VAL_COLOUR, label="the same over mini-batches"
        )
        axes.plot(part["epoch"], part["two_over_lr"], "_-", ms=14, color="0.2", lw=1, label="2 / lr")
        _epochs(axes)
        axes.set_title(textwrap.fill(str(label), 50), fontsize=8)
    measured = frame[[*eigenvalues, "sharpness", "batch_sharpness", "two_over_lr"]].to_numpy(dtype=float)
    smallest = np.abs(measured[np.isfinite(measured) & (measured != 0)])
    if (measured[np.isfinite(measured)] > 0).all():
        panels[0].set_yscale("log")
    elif smallest.size:
        panels[0].set_yscale("symlog", linthresh=max(float(np.quantile(smallest, 0.1)), 1e-3))
    panels[0].set_ylabel("curvature")
    panels[0].legend(fontsize=7)
    return figure


def interpolation(
    shares: np.ndarray, values: Mapping[str, np.ndarray], ends: tuple[str, str], held_out: str, title: str
) -> Figure:
    """Loss and accuracy of the networks between two.

    Args:
        shares: `(P,)`, from 0 to 1.
        values: `(P,)` each: `train_loss`, `train_accuracy`, `held_out_loss`, `held_out_accuracy`.
        ends: What lies at 0 and at 1.
        held_out: What the images are called that were not trained on.
        title: Of the whole.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(_wrapped(title, 120), fontsize=9)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for axes, quantity in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        axes.plot(shares, values[f"train_{quantity}"], "o-", ms=4, color=TRAIN_COLOUR, label="training images")
        axes.plot(shares, values[f"held_out_{quantity}"], "s-", ms=4, color=VAL_COLOUR, label=held_out)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("\n".join(textwrap.fill(f"{at}: {end}", 60) for at, end in enumerate(ends)), fontsize=8)
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def covariate_shift(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Shift, angle and gradient norm over layers, a line for each epoch, a column of panels for each run.

    Args:
        rows: With `run`, `epoch`, `layer` (from 1), `distance`, `cosine` and `gradient_norm`.
        title: Of the whole.
    """
    runs = list(pd.DataFrame(rows).groupby("run", sort=False))
    figure = Figure(figsize=(1.2 + 4.2 * len(runs), 8.4), layout="constrained")
    figure.suptitle(_wrapped(title, 30 + 52 * len(runs)), fontsize=9)
    panels = figure.subplots(3, len(runs), sharex="col", sharey="row", squeeze=False)
    for column, (label, part) in zip(panels.T, runs, strict=True):
        shades = colormaps["viridis"](np.linspace(0, 0.85, part["epoch"].nunique()))
        for (epoch, line), shade in zip(part.groupby("epoch"), shades, strict=True):
            relative = line["distance"] / line["gradient_norm"].where(line["gradient_norm"] > 0)
            # The lowest layer has none below it; on a logarithmic axis its zero has no place.
            for axes, values in zip(column, (relative[1:], line["cosine"][1:], line["gradient_norm"]), strict=True):
                axes.plot(line["layer"][-len(values) :], values, "o-", ms=4, color=shade, label=f"epoch {epoch}")
                axes.grid(alpha=0.3)
        column[0].set_title(textwrap.fill(str(label), 46), fontsize=8)
        column[-1].set_xlabel("layer, from the images up")
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, name in zip(panels[:, 0], ("||G - G'|| / ||G||", "cos(G, G')", "||G||"), strict=True):
        axes.set_ylabel(name)
    for axes in panels[[0, 2]].flat:
        axes.set_yscale("log")
    panels[0, 0].legend(fontsize=7)
    return figure


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _wrapped(title: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())


_LINES = ("-", "--")


@dataclass(frozen=True)
class Contour:
    """The loss on a plane.

    Attributes:
        title: Of what.
        axes: Where the points are along either side, `(X,)` and `(Y,)`.
        losses: `(X, Y)`.
        names: Of the two axes.
        trajectory: `(snapshots, 2)`, drawn on top; None where there is none.
    """

    title: str
    axes: tuple[np.ndarray, ...]
    losses: np.ndarray
    names: tuple[str, ...]
    trajectory: np.ndarray | None = None


def contours(panels: Sequence[Sequence[Contour]], levels: np.ndarray, title: str) -> Figure:
    """Filled contours of several planes, all at the same levels.

    Args:
        panels: A row for each run.
        levels: Rising, above zero.
        title: Of the whole.
    """
    rows, columns = len(panels), max(map(len, panels))
    figure = Figure(figsize=(1.6 + 4.4 * columns, 1.1 + 4.1 * rows), layout="constrained")
    figure.suptitle(wrapped(title, 60 * columns + 10), fontsize=9)
    drawn: list[QuadContourSet] = []
    for row, several in zip(figure.subplots(rows, columns, squeeze=False), panels, strict=True):
        for axes in row[len(several) :]:
            axes.remove()
        drawn += [_contour(axes, panel, levels) for axes, panel in zip(row, several, strict=False)]
    bar = figure.colorbar(drawn[0], ax=figure.axes, shrink=0.8, label="loss, the same levels everywhere")
    bar.set_ticks(levels[::2].tolist(), labels=[f"{level:.3g}" for level in levels[::2]])
    bar.minorticks_off()
    return figure


def _contour(axes: Axes, panel: Contour, levels: np.ndarray) -> QuadContourSet:
    # What is not finite, or above all levels, has the colour of the highest; matplotlib leaves infinity white.
    losses = np.nan_to_num(panel.losses, nan=np.inf).clip(levels[0] / 2, levels[-1] * 2)
    options: dict[str, Any] = {"levels": levels, "norm": LogNorm(levels[0], levels[-1])}
    drawn = axes.contourf(*panel.axes, losses.T, cmap="viridis", extend="both", **options)
    axes.contour(*panel.axes, losses.T, colors="white", linewidths=0.4, alpha=0.6, **options)
    if panel.trajectory is None:
        axes.plot(0, 0, "*", ms=11, color="white", mec="black", mew=0.7)
    else:
        axes.plot(*panel.trajectory.T, "o-", ms=3, lw=1, color="#ff6f59", mec="black", mew=0.3)
        axes.plot(*panel.trajectory[0], "s", ms=7, color="white", mec="black", mew=0.7, label="first")
        axes.plot(*panel.trajectory[-1], "*", ms=11, color="white", mec="black", mew=0.7, label="final")
        axes.legend(fontsize=7, loc="best")
    axes.set_xlabel(panel.names[0], fontsize=8)
    axes.set_ylabel(panel.names[1], fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title("\n".join(textwrap.fill(line, 48) for line in panel.title.splitlines()), fontsize=8)
    return drawn


def profiles(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """The loss along one filter-normalised direction, a line for each run.

    Args:
        lines: Distances `(P,)` and losses `(P,)` by the run's label.
        title: Of the whole.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for (label, (distances, losses)), colour, style in zip(
        lines.items(), colours(len(lines)), _LINES * len(lines), strict=False
    ):
        finite = np.where(np.isfinite(losses), losses, np.nan)
        axes.plot(distances, finite, style, color=colour, label=textwrap.fill(label, 60))
    axes.set_yscale("log")
    axes.set_xlabel("distance along a random direction; at 1 each filter has moved by its own norm")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(wrapped(title, 95), fontsize=9)
    return figure
