"""What a subcommand leaves: tables and figures, and rows for whoever asks for JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cifar_lab.runs import replacing

if TYPE_CHECKING:
    from cifar_lab.analysis.figures import Figure


@dataclass(frozen=True)
class Written:
    """What a subcommand has written.

    Attributes:
        files: Tables and figures.
        rows: What it found, in plain values: a row for each thing that was measured, or a summary of many.
    """

    files: list[Path]
    rows: list[dict[str, Any]]


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write rows as CSV."""
    with replacing(path) as file:
        pd.DataFrame(list(rows)).to_csv(file, index=False)
    return path


def write_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG."""
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=130, format="png")
    return path
