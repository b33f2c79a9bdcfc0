"""Figures of Grad-CAM maps, filters and activations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cifar_lab.figures import AMBER, BLUE, ORANGE, SKY, wrapped

_PAIRS = 4  # pairs of image and overlay per row
_MEASURED = {
    "negative_inputs": ("inputs below 0", SKY),
    "zeros": ("outputs that are 0", BLUE),
    "negative_only": ("units whose input is never above 0", AMBER),
    "dead": ("dead units, whose derivative is always 0", ORANGE),
}


def grad_cams(overlaid: Sequence[tuple[np.ndarray, np.ndarray, str, str]], title: str) -> Figure:
    """Draw pairs of an image and its Grad-CAM overlay, each map scaled from 0 to its own maximum.

    Args:
        overlaid: At least one image, uint8 `(32, 32, 3)`, with its non-negative map `(32, 32)` and the titles of
            the image and of the overlay.
        title: Title of the figure.
    """
    pairs = min(_PAIRS, len(overlaid))
    rows = -(-len(overlaid) // pairs)
    figure = Figure(figsize=(max(4.4, 3.1 * pairs), 0.9 + 1.85 * rows), layout="constrained")
    figure.suptitle(wrapped(title, 32 * pairs), fontsize=9)
    grid = list(figure.subplots(rows, 2 * pairs, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for number, (pixels, heat, above, caption) in enumerate(overlaid):
        plain, overlay = grid[2 * number : 2 * number + 2]
        plain.imshow(pixels)
        overlay.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255)
        highest = heat.max()
        if highest > 0:  # otherwise the maps hold no evidence for the class
            overlay.imshow(heat / highest, cmap="inferno", vmin=0, vmax=1, alpha=0.6)
        plain.set_title(wrapped(above, 18), fontsize=7)
        overlay.set_title(wrapped(caption, 18), fontsize=7)
    return figure


def filters(weights: np.ndarray, title: str) -> Figure:
    """Draw filters as RGB images, each scaled separately from its lowest weight (0) to its highest (1).

    Args:
        weights: `(K, 3, h, w)`, over red, green and blue.
        title: Title of the figure.
    """
    count, _, height, width = weights.shape
    low = weights.min(axis=(1, 2, 3), keepdims=True)
    scaled = (weights - low) / np.maximum(weights.max(axis=(1, 2, 3), keepdims=True) - low, 1e-12)
    columns = min(16, count)
    rows = -(-count // columns)
    mosaic = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, 3))
    for number, one in enumerate(scaled):
        top, left = 1 + number // columns * (height + 1), 1 + number % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = one.transpose(1, 2, 0)
    figure = Figure(figsize=(max(5.0, 0.5 * columns), 1.0 + 0.5 * rows), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, interpolation="nearest")
    axes.axis("off")
    words = f"{title}\neach scaled separately, from its lowest weight to its highest"
    axes.set_title(wrapped(words, 70), fontsize=9)
    return figure


def activations(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw bars for each activation layer: shares of its inputs, outputs and units.

    Args:
        rows: `layer`, `activation`, `units` and the four shares, from 0 to 1, of at least one layer.
        title: Title of the figure.
    """
    figure = Figure(figsize=(8, 1.8 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    for number, (name, (label, colour)) in enumerate(_MEASURED.items()):
        shares = [row[name] for row in rows]
        bars = axes.barh(places + (number - 1.5) * 0.2, shares, height=0.2, color=colour, label=label)
        axes.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=6, padding=2)
    labels = [f"{row['layer']} ({row['activation']}, {row['units']:,} units)" for row in rows]
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", alpha=0.3)
    figure.suptitle(wrapped(title, 100), fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
