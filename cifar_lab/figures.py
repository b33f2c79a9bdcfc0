"""Shared style and rendering of figures; only modules named `figures.py` use matplotlib."""

import io
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator

Colour = tuple[float, float, float, float]
# Okabe and Ito's colour-blind-safe palette (doi:10.1038/nmeth.1618), without yellow, which is too light on white.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
AMBER, SKY, BLACK = "#e69f00", "#56b4e9", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, BLACK)
TRAIN_COLOUR, VAL_COLOUR = BLUE, ORANGE


def colours(count: int) -> list[Colour]:
    """Return `count` distinct colours: from `PALETTE`, or shades from dark to light if it has too few."""
    if count <= len(PALETTE):
        return [to_rgba(colour) for colour in PALETTE[:count]]
    return [tuple(shade) for shade in colormaps["viridis"](np.linspace(0.0, 0.9, count))]


def wrapped(title: str, width: int) -> str:
    """Wrap each line of a title at `width` characters."""
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())


def epoch_axis(axes: Axes) -> None:
    """Label the x axis with whole epochs, and draw a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)


def painted(draw: Callable[[], Figure | None], name: object, **options: Any) -> bytes | None:
    """Draw a figure in matplotlib's default style, ignoring the user's `matplotlibrc`.

    Args:
        draw: Returns the figure, or None if there is nothing to draw.
        name: Name of the figure in the note that is printed if drawing fails.
        **options: Options of `Figure.savefig`.

    Returns:
        The file's content; None if there is no figure, empty if drawing fails.
    """
    file = io.BytesIO()
    try:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            figure = draw()
            if figure is None:
                return None
            _show_formulas_as_typed(figure)
            figure.savefig(file, **options)
    except Exception as error:
        print(f"note: {name} was not drawn: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return b""
    return file.getvalue()


def _show_formulas_as_typed(figure: Figure) -> None:
    """Disable math text except in tick labels of logarithmic axes, since names may contain `$`: `cost_$5_vs_$10`."""
    scales = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    logarithmic = [axis for axis in scales if isinstance(axis.get_major_formatter(), LogFormatter)]
    formulas = {label for axis in logarithmic for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        text.set_parse_math(text in formulas)
