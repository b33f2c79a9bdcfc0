"""Figures of a run: training curves and learning rate."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR, epoch_axis, wrapped


def training_curves(metrics: pd.DataFrame, title: str, val_label: str = "validation") -> Figure:
    """Plot training and validation loss and accuracy over epochs, with the best epoch marked.

    `metrics` has one row per epoch with `epoch`, `train/loss`, `train/acc`, `val/loss` and `val/acc`. `val_label` is
    the legend label of `val/*`.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(wrapped(title, 110), fontsize=10)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    validated = metrics.dropna(subset=["val/acc"])
    for axes, quantity in ((loss_axes, "loss"), (accuracy_axes, "acc")):
        axes.plot(metrics["epoch"], metrics[f"train/{quantity}"], "o-", ms=3, color=TRAIN_COLOUR, label="training")
        axes.plot(validated["epoch"], validated[f"val/{quantity}"], "s-", ms=3, color=VAL_COLOUR, label=val_label)
        epoch_axis(axes)
    loss_axes.set_ylabel("loss, mean over images")
    accuracy_axes.set_ylabel("accuracy")
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    if len(validated):
        best = validated.iloc[validated["val/acc"].argmax()]
        label = f"best: {best['val/acc']:.2%} in epoch {best['epoch']:.0f}"
        accuracy_axes.axvline(best["epoch"], color=VAL_COLOUR, lw=1, ls=":", label=label)
    loss_axes.legend()
    accuracy_axes.legend(loc="lower right")
    return figure


def learning_rate(rates: np.ndarray, steps_per_epoch: int, title: str) -> Figure:
    """Plot the learning rate of every step, `rates` `(steps,)`, over epochs of `steps_per_epoch` optimizer steps."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(rates) + 1) / steps_per_epoch, rates, color=TRAIN_COLOUR, drawstyle="steps-pre")
    axes.set_title(wrapped(title, 70), fontsize=10)
    axes.set_ylabel("learning rate")
    if rates.min() > 0 and rates.max() / rates.min() > 100:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    epoch_axis(axes)
    return figure
