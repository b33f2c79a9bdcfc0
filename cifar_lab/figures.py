"""The style that figures share; only files called `figures.py` use matplotlib."""

import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Figure
from matplotlib.ticker import MaxNLocator

Colour = tuple[float, float, float, float]
TRAIN_COLOUR, VAL_COLOUR = "#4c72b0", "#dd8452"


def colours(count: int) -> list[Colour]:
    """Colours to tell `count` compositions apart."""
    shades = colormaps["tab10"](np.arange(10)) if count <= 10 else colormaps["turbo"](np.linspace(0.05, 0.95, count))
    return [tuple(shade) for shade in shades[:count]]


def wrapped(title: str, width: int) -> str:
    """Its lines, none longer than `width` letters."""
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())


def epoch_axis(axes: Axes) -> None:
    """Label the x axis with whole epochs, and draw a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
