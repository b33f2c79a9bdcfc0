"""What every subcommand is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What every subcommand is told.

    Attributes:
        output: The folder for numbers and figures.
        images: How many training images the loss is of.
        seed: Of which images, and of random directions and vectors.
        allow: Packages whose components may run.
    """

    output: Path
    images: int = 500
    seed: int = 0
    allow: Sequence[str] = ()
