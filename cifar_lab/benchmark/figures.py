"""Figure of the speeds of training loops."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cifar_lab.figures import BLUE, GREEN, ORANGE, PURPLE, wrapped

_PHASES = (PURPLE, BLUE, GREEN, ORANGE, "0.6")  # data, forward, backward, optimizer, framework


def loop_speeds(speeds: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str) -> Figure:
    """Draw one panel per network: images per second of each loop, split by the phases of a step.

    Args:
        speeds: By network, then by loop: `images_per_second`, those of the lowest and highest round (`_low`, `_high`),
            `ratio_to_report`, `ratio_to_best` and `shares` by phase.
        title: Description of the machine.
    """
    heights = [len(loops) for loops in speeds.values()]
    figure = Figure(figsize=(9, 1.2 + sum(0.42 * height + 0.8 for height in heights)), layout="constrained")
    figure.suptitle(wrapped(title, 110), fontsize=9)
    panels = figure.subplots(len(speeds), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (network, loops) in zip(panels, speeds.items(), strict=True):
        rows = np.arange(len(loops))
        for row, measured in zip(rows, loops.values(), strict=True):
            left, speed = 0.0, measured["images_per_second"]
            for shade, (phase, share) in enumerate(measured["shares"].items()):
                axes.barh(
                    row, share * speed, left=left, height=0.7, color=_PHASES[shade], label=phase if not row else None
                )
                left += share * speed
            low, high = measured["images_per_second_low"], measured["images_per_second_high"]
            axes.errorbar(speed, row, xerr=[[speed - low], [high - speed]], fmt="none", ecolor="0.15", capsize=3)
            ratios = {"report": measured["ratio_to_report"], "best": measured["ratio_to_best"]}
            words = "".join(f", {ratio:.2f} x {name}" for name, ratio in ratios.items() if ratio is not None)
            axes.text(max(high, left), row, f"   {speed:,.0f}{words}", va="center", fontsize=8)
        fastest = max(measured["images_per_second_high"] for measured in loops.values())
        axes.set_yticks(rows, list(loops), fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.35 * fastest)
        axes.set_title(network, fontsize=9)
    panels[-1].set_xlabel("training images per second: median, lowest and highest round; colours: shares of a step")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    return figure
