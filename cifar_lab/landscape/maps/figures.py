"""Figures of loss surfaces, curvature, interpolation and internal covariate shift."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_lab.figures import GREEN, PURPLE, TRAIN_COLOUR, VAL_COLOUR, colours, epoch_axis, wrapped


def curvature(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw eigenvalues, sharpness and 2 / lr over epochs, one panel per run with a shared axis.

    `rows` have the keys `run`, `epoch`, `eigenvalue_1` and so on (algebraically largest), `smallest_eigenvalue`,
    `sharpness`, `batch_sharpness` and `two_over_lr`.
    """
    frame = pd.DataFrame(rows)
    runs = list(frame.groupby("run", sort=False))
    figure = _figure(1.5 + 4.6 * len(runs), 4.9, title, 25 + 60 * len(runs))
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    largest, *others = (str(name) for name in frame if str(name).startswith("eigenvalue_"))
    next_ones: dict[str, Any] = {"ms": 3.5, "color": TRAIN_COLOUR, "alpha": 0.6}
    for axes, (label, part) in zip(panels, runs, strict=True):
        epochs = part["epoch"]
        axes.plot(epochs, part[largest], "o-", ms=6, color=TRAIN_COLOUR, label="largest eigenvalue (algebraic)")
        for number, name in enumerate(others):
            axes.plot(epochs, part[name], "o", label=None if number else f"the next {len(others)}", **next_ones)
        axes.plot(epochs, part["smallest_eigenvalue"], "v-", ms=5, color=PURPLE, label="smallest eigenvalue")
        axes.plot(epochs, part["sharpness"], "s--", ms=5, color=GREEN, label="g'Hg / ||g||², full batch")
        axes.plot(epochs, part["batch_sharpness"], "^:", ms=5, color=VAL_COLOUR, label="g'Hg / ||g||², mini-batches")
        axes.plot(epochs, part["two_over_lr"], "_-", ms=14, color="0.2", lw=1, label="2 / lr")
        epoch_axis(axes)
        axes.set_title(textwrap.fill(str(label), 50), fontsize=8)
    columns = [largest, *others, "smallest_eigenvalue", "sharpness", "batch_sharpness", "two_over_lr"]
    measured = frame[columns].to_numpy(dtype=float)
    finite = measured[np.isfinite(measured)]
    if (finite > 0).all():
        panels[0].set_yscale("log")
    elif finite.any():
        panels[0].set_yscale("symlog", linthresh=max(float(np.quantile(np.abs(finite[finite != 0]), 0.1)), 1e-3))
    panels[0].set_ylabel("curvature")
    panels[0].legend(fontsize=7)
    return figure


def interpolation(
    shares: np.ndarray, values: Mapping[str, np.ndarray], ends: tuple[str, str], held_out: str, title: str
) -> Figure:
    """Draw loss and accuracy along the line between two networks.

    Args:
        shares: Interpolation fractions `(P,)`, rising from 0 to 1.
        values: `train_loss`, `train_accuracy`, `held_out_loss` and `held_out_accuracy`, `(P,)` each.
        ends: Labels of the first and the last network.
        held_out: Label of the images that were not trained on.
        title: Title of the figure.
    """
    figure = _figure(10, 4.6, title, 120)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for axes, quantity in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        axes.plot(shares, values[f"train_{quantity}"], "o-", ms=4, color=TRAIN_COLOUR, label="training images")
        axes.plot(shares, values[f"held_out_{quantity}"], "s-", ms=4, color=VAL_COLOUR, label=held_out)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(wrapped("\n".join(f"{at}: {end}" for at, end in enumerate(ends)), 60), fontsize=8)
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def covariate_shift(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw shift, cosine and gradient norm over layers, one line per epoch and one column of panels per run.

    `rows` have the keys `run`, `epoch`, `layer` (from 1), `distance`, `cosine` and `gradient_norm`.
    """
    runs = list(pd.DataFrame(rows).groupby("run", sort=False))
    figure = _figure(1.2 + 4.2 * len(runs), 8.4, title, 30 + 52 * len(runs))
    panels = figure.subplots(3, len(runs), sharex="col", sharey="row", squeeze=False)
    for column, (label, part) in zip(panels.T, runs, strict=True):
        shades = colormaps["viridis"](np.linspace(0, 0.85, part["epoch"].nunique()))
        for (epoch, line), shade in zip(part.groupby("epoch"), shades, strict=True):
            relative = line["distance"] / line["gradient_norm"].where(line["gradient_norm"] > 0)
            # The shift of the lowest layer is 0, which a logarithmic axis cannot show.
            for axes, values in zip(column, (relative[1:], line["cosine"][1:], line["gradient_norm"]), strict=True):
                axes.plot(line["layer"][-len(values) :], values, "o-", ms=4, color=shade, label=f"epoch {epoch}")
                axes.grid(alpha=0.3)
        column[0].set_title(textwrap.fill(str(label), 46), fontsize=8)
        column[-1].set_xlabel("layer, counted from the input")
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, name in zip(panels[:, 0], ("||G - G'|| / ||G||", "cos(G, G')", "||G||"), strict=True):
        axes.set_ylabel(name)
    for axes in panels[[0, 2]].flat:
        axes.set_yscale("log")
    panels[0, 0].legend(fontsize=7)
    return figure


class Contour(NamedTuple):
    """Loss `(X, Y)` on a plane with axes `(X,)` and `(Y,)`, with an optional trajectory `(snapshots, 2)`."""

    title: str
    axes: tuple[np.ndarray, ...]
    losses: np.ndarray
    names: tuple[str, ...]
    trajectory: np.ndarray | None = None


def contours(panels: Sequence[Sequence[Contour]], levels: np.ndarray, title: str) -> Figure:
    """Draw filled contours of several planes, one row per run, all at the same ascending, positive levels."""
    rows, columns = len(panels), max(map(len, panels))
    figure = _figure(1.6 + 4.4 * columns, 1.1 + 4.1 * rows, title, 60 * columns + 10)
    drawn: list[QuadContourSet] = []
    for row, several in zip(figure.subplots(rows, columns, squeeze=False), panels, strict=True):
        for axes in row[len(several) :]:
            axes.remove()
        drawn += [_contour(axes, panel, levels) for axes, panel in zip(row, several, strict=False)]
    bar = figure.colorbar(drawn[0], ax=figure.axes, shrink=0.8, label="loss, same levels in all panels")
    bar.set_ticks(levels[::2].tolist(), labels=[f"{level:.3g}" for level in levels[::2]])
    bar.minorticks_off()
    return figure


def _contour(axes: Axes, panel: Contour, levels: np.ndarray) -> QuadContourSet:
    # Non-finite losses get the colour of the highest level; matplotlib leaves infinity white.
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
    axes.set_title(wrapped(panel.title, 48), fontsize=8)
    return drawn


def profiles(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Draw the loss along one filter-normalised direction: for each run, distances and losses `(P,)` by its label."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (label, (distances, losses)) in enumerate(lines.items()):
        finite = np.where(np.isfinite(losses), losses, np.nan)
        style, colour = ("-", "--")[number % 2], colours(len(lines))[number]
        axes.plot(distances, finite, style, color=colour, label=textwrap.fill(label, 60))
    axes.set_yscale("log")
    axes.set_xlabel("distance along a random direction; at 1 each filter moves by its own norm")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(wrapped(title, 95), fontsize=9)
    return figure


def _figure(width: float, height: float, title: str, letters: int) -> Figure:
    """Make an empty figure, size in inches, with a title wrapped at `letters` characters."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(wrapped(title, letters), fontsize=9)
    return figure
