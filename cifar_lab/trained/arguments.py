"""Command-line arguments for trained networks. Does not import torch."""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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


def _option(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=text)


@dataclass(frozen=True)
class Overrides:
    """Command-line options that describe a network, with their help; None takes the run's or the file's value.

    Raises:
        ValueError: A value is out of range.
    """

    model: Annotated[str | None, _option("Refuse weights of a different model than this option, such as vgg_a.")] = None
    bn: Annotated[bool | None, _option("Refuse weights without, or with, BatchNorm.", "--bn/--no-bn")] = None
    activation: Annotated[
        str | None, _option("Activation of a bare weight file, if its name lacks it or is wrong.")
    ] = None
    negative_slope: Annotated[float | None, _option("Slope of LeakyReLU in a bare weight file.")] = None
    mean: Annotated[
        tuple[float, ...] | None,
        _option("Mean for images in [0, 1] of a bare weight file, such as 0.5,0.5,0.5."),
    ] = None
    std: Annotated[tuple[float, ...] | None, _option("Standard deviation of a bare weight file.")] = None
    precision: Annotated[
        str | None, _option("Precision, such as 32-true. Default: the run's; 32-true for a bare weight file.")
    ] = None
    data_root: Annotated[
        Path | None, _option("Folder of the data, like data.root or data.path. Default: the run's, or CIFAR_LAB_DATA.")
    ] = None
    allow: Annotated[Sequence[str], _option("A package whose components may run; may be repeated.")] = ()

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != 3:
                raise UsageError(f"--{name} takes three numbers, of red, green and blue, not {len(values)}")
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std {','.join(map(str, self.std))}: each must be above 0")

    def of_network(self) -> list[str]:
        """Return the given options, as typed, that a run or a described file already records."""
        names = ("activation", "negative_slope", "mean", "std")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]


# Types of options that are text on the command line, or an optional list.
_TYPED: dict[str, Any] = {"mean": str | None, "std": str | None, "allow": list[str] | None}


def takes_overrides(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add the options of `Overrides` to a command, which gets them as one argument, `overrides`.

    Args:
        without: Options to leave out.
    """
    options = {field.name: get_args(field.type) for field in fields(Overrides) if field.name not in without}
    annotations = {name: Annotated[_TYPED.get(name, kind), option] for name, (kind, option) in options.items()}
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=each) for name, each in annotations.items()]

    def with_them(command: Command) -> Command:
        own = inspect.signature(command)
        parameters = [*(each for name, each in own.parameters.items() if name != "overrides"), *added]

        @functools.wraps(command)
        def with_options(**arguments: Any) -> object:
            overrides = {each.name: arguments.pop(each.name) for each in added}
            overrides |= {name: numbers(overrides[name], f"--{name}") for name in ("mean", "std") if name in overrides}
            return command(overrides=Overrides(**{**overrides, "allow": tuple(overrides["allow"] or ())}), **arguments)

        # typer reads both.
        with_options.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {each.name: each.annotation for each in parameters}
        del with_options.__wrapped__
        return with_options

    return with_them


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Parse an option's comma-separated numbers; raise `UsageError` if one is not a finite number."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text} must be comma-separated numbers, such as 0.5,0.5,0.5")
    return values


def check_there(networks: Iterable[Path]) -> None:
    """Raise `UsageError` if a path is neither a run's folder nor a file."""
    for path in networks:
        if path.is_dir() and not is_run(path):
            raise UsageError(f"{path} is not a run; name a run's folder, which has a status.json, or a file of weights")
        if not (path.is_dir() or path.is_file()):
            raise UsageError(f"{path} does not exist; name a run's folder, or a file of weights")


def with_runs_below(networks: Sequence[Path]) -> list[Path]:
    """Replace each folder that is not a run by the runs in it; raise `UsageError` if one does not exist or has none."""
    places: list[Path] = []
    for path in networks:
        below = [run.folder for run in find_runs(path)] if path.is_dir() else []
        check_there(below or [path])
        places += below or [path]
    return places


def load_noting(path: Path, overrides: Overrides) -> "Trained":
    """Load a network, and print assumptions and notes to standard error; raises like `load`."""
    from cifar_lab.trained import load

    trained = load(path, overrides)
    for line in (*trained.assumed, *([] if trained.gives_probabilities else [NO_PROBABILITIES])):
        note(f"{path}: {line}")
    return trained


def folder_of(path: Path, name: str) -> Path:
    """Return the folder for a command's files: in the run, or next to the file of weights."""
    return path / name if path.is_dir() else path.parent / f"{path.stem}-{name}"
