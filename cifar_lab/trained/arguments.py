"""The arguments that every command on a trained network takes."""

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab.runs import find_runs
from cifar_lab.runs.labels import NO_PROBABILITIES
from cifar_lab.terminal.printing import note
from cifar_lab.trained import Said, check_there, numbers

if TYPE_CHECKING:
    from cifar_lab.trained import Trained

Command = Callable[..., object]

Network = Annotated[Path, typer.Argument(help="The folder of a run, or a file of weights.", metavar="RUN|WEIGHTS")]
Networks = Annotated[
    list[Path],
    typer.Argument(help="Runs, folders that are searched for runs, or files of weights.", metavar="RUN|WEIGHTS..."),
]


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
