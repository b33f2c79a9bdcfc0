"""The published accuracies beside the measured ones, at a glance."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR

_LINEAR = 1.0  # points to both sides that are drawn to scale; beyond, a row far off would hide the others
_PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # behind a number, which may lie on the line of zero
_TICKS = (-30, -10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30)


class Judged(NamedTuple):
    """A row with a published accuracy that has been run; accuracies are from 0 to 1.

    Attributes:
        label: The row's.
        published: The published accuracy.
        measured: The mean over seeds.
        noise: The interval of the published accuracy if noise explains it.
        verdict: On the row.
    """

    label: str
    published: float
    measured: float
    noise: tuple[float, float]
    verdict: str


def agreement(rows: Sequence[Judged]) -> Figure:
    """How far each measured accuracy lies from the published one, with the verdict's interval; rows from the top."""
    figure = Figure(figsize=(9, 1.1 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        middle, low, high = (100 * (value - row.published) for value in (row.measured, *row.noise))
        is_within = row.verdict == "within noise"
        colour, marker = (TRAIN_COLOUR, "o") if is_within else (VAL_COLOUR, "D")
        axes.plot([low, high], [place, place], "-", lw=2, color=colour)
        axes.plot([middle], [place], marker, ms=6, color=colour)
        told = f"{middle:+.2f}"
        axes.annotate(told, (high, place), (6, 0), textcoords="offset points", va="center", fontsize=8, bbox=_PLAIN)
    axes.axvline(0, color="0.4", lw=1)
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=1.5)
    furthest = max(abs(100 * (bound - row.published)) for row in rows for bound in row.noise)
    axes.set_xlim(-1.6 * max(furthest, 2), 1.6 * max(furthest, 2))
    ticks = [tick for tick in _TICKS if abs(tick) <= 1.6 * max(furthest, 2)]
    axes.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"measured less published accuracy, percentage points; to scale within ±{_LINEAR:g}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    return figure
