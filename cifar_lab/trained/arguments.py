"""What a command line says of trained networks: the arguments of every command on them. Imports no torch."""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import find_runs, is_run
from cifar_lab.runs.labels import NO_PROBABILITIES
from cifar_lab.terminal.printing import note

if TYPE_CHECKING:
    from cifar_lab.trained import Trained

Command = Callable[..., object]

Network = Annotated[Path, typer.Argument(help="The folder of a run, or a file of weights.", metavar="RUN|WEIGHTS")]
Networks = Annotated[
    list[Path],
    typer.Argument(help="Runs, folders that are searched for runs, or files of weights.", metavar="RUN|WEIGHTS..."),
]


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


def says_of_network(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options that `Said` is made of, which reach it as one argument, `said`.

    Args:
        without: Those that it does not take.
    """
    added = [each for name, each in inspect.signature(_said).parameters.items() if name not in without]

    def with_them(command: Command) -> Command:
        own = inspect.signature(command)
        parameters = [*(each for name, each in own.parameters.items() if name != "said"), *added]

        @functools.wraps(command)
        def with_options(**arguments: Any) -> object:
            said = _said(**{each.name: arguments.pop(each.name) for each in added})
            return command(said=said, **arguments)

        # typer reads both.
        with_options.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {each.name: each.annotation for each in parameters}
        del with_options.__wrapped__
        return with_options

    return with_them


def _said(
    *,
    model: Annotated[
        str | None, typer.Option(help="Refuse weights of another model, such as vgg_a, an option of model.")
    ] = None,
    bn: Annotated[bool | None, typer.Option("--bn/--no-bn", help="Refuse weights without, or with, BatchNorm.")] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of a file alone: its activation, where its name says none, or a wrong one.")
    ] = None,
    negative_slope: Annotated[float | None, typer.Option(help="Of a file alone: of its LeakyReLU.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of a file alone: what is subtracted from images from 0 to 1, as 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Of a file alone: what they are divided by.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Lightning's name, as 32-true; default: the run's, of a file alone 32-true.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="The folder of CIFAR-10; default: the run's, else CIFAR_LAB_DATA's.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A package whose components may run; may be repeated.")
    ] = None,
) -> Said:
    means, stds = numbers(mean, "--mean"), numbers(std, "--std")
    return Said(model, bn, activation, negative_slope, means, stds, precision, data_root, tuple(allow or ()))


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


def with_runs_below(networks: Sequence[Path]) -> list[Path]:
    """Replace each folder that is no run by the runs in it.

    Raises:
        ValueError: One does not exist, or holds no run.
    """
    found: list[Path] = []
    for path in networks:
        below = [run.folder for run in find_runs(path)] if path.is_dir() else []
        check_there(below or [path])
        found += below or [path]
    return found


def load_noting(path: Path, said: Said) -> "Trained":
    """Load a network, and print on standard error what is assumed and to be known of it; raises as `load`."""
    from cifar_lab.trained import load

    trained = load(path, said)
    for line in (*trained.assumed, *([] if trained.gives_probabilities else [NO_PROBABILITIES])):
        note(f"{path}: {line}")
    return trained


def folder_of(path: Path, name: str) -> Path:
    """Where a command's files go: a folder in the run, or beside the file of weights."""
    return path / name if path.is_dir() else path.parent / f"{path.stem}-{name}"
