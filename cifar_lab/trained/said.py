"""What a command line says of a network that its file does not."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Said:
    """What a command line says of a network; None leaves it to the run or the file.

    Attributes:
        model: An option of `model`, which the weights have to be of.
        bn: Whether it has BatchNorm.
        activation: An option of `activation`.
        negative_slope: Of a LeakyReLU, below 0.
        mean: Per channel, subtracted from images from 0 to 1.
        std: Per channel, divided by.
        precision: Lightning's name of the precision that it computes in.
        data_root: The folder of CIFAR-10.
        allow: Packages whose components may run.

    Raises:
        ValueError: A value is out of its range.
    """

    model: str | None = None
    bn: bool | None = None
    activation: str | None = None
    negative_slope: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    precision: str | None = None
    data_root: Path | None = None
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != 3:
                raise ValueError(f"--{name} takes three numbers, of red, green and blue, not {len(values)}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"--std {','.join(map(str, self.std))}: each lies above 0")

    def of_network(self) -> list[str]:
        """The options given that a run says by itself, as they are typed."""
        names = ("activation", "negative_slope", "mean", "std")
        given = [field.name for field in fields(self) if field.name in names and getattr(self, field.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in given]


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """The numbers of an option, joined by commas.

    Raises:
        ValueError: A part is no finite number.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        values = ()
    if not values or not all(value - value == 0 for value in values):
        raise ValueError(f"{option} {text}: numbers joined by commas, such as 0.5,0.5,0.5")
    return values
