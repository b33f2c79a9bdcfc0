"""What a subcommand leaves: tables and figures, and rows for whoever asks for JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Written:
    """What a subcommand has written.

    Attributes:
        files: Tables and figures.
        rows: What it found, in plain values: a row for each thing that was measured, or a summary of many.
    """

    files: list[Path]
    rows: list[dict[str, Any]]
