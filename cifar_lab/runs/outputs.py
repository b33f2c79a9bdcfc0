"""Tables and figures as files, whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cifar_lab.runs import replacing

if TYPE_CHECKING:
    from cifar_lab.figures import Figure


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write rows as CSV."""
    with replacing(path) as file:
        pd.DataFrame(list(rows)).to_csv(file, index=False)
    return path


def write_figure(figure: "Figure", path: Path, dpi: int = 130) -> Path:
    """Write a figure as PNG."""
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=dpi, format="png")
    return path
