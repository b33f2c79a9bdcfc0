"""Figures of curvature, of networks between two, and of internal covariate shift."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR


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
