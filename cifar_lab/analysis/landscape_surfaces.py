"""Figures of loss surfaces."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from cifar_lab.figures import colours

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
    figure.suptitle(_wrapped(title, 60 * columns + 10), fontsize=9)
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
    axes.set_title(_wrapped(title, 95), fontsize=9)
    return figure


def _wrapped(title: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())
