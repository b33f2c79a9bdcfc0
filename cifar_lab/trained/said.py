"""What a command line says of a network that its file does not. Imports no torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import is_run


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
                raise UsageError(f"--{name} takes three numbers, of red, green and blue, not {len(values)}")
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std {','.join(map(str, self.std))}: each lies above 0")

    def of_network(self) -> list[str]:
        """The given options that a run and a described file say themselves, as they are typed."""
        names = ("activation", "negative_slope", "mean", "std")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Parse an option's numbers, joined by commas.

    Raises:
        ValueError: A part is no finite number.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text}: numbers joined by commas, such as 0.5,0.5,0.5")
    return values


def check_there(networks: Iterable[Path]) -> None:
    """Refuse what is neither a run's folder nor a file.

    Raises:
        ValueError: In one line that says what to name.
    """
    for path in networks:
        if path.is_dir() and not is_run(path):
            raise UsageError(f"{path} is no run; name a run's folder, which holds a status.json, or a file of weights")
        if not (path.is_dir() or path.is_file()):
            raise UsageError(f"{path} does not exist; name a run's folder, or a file of weights")
