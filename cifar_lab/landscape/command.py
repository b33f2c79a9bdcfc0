"""Measure the loss landscape of finished runs: `python -m cifar_lab.landscape surface RUN RUN`."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, is_run
from cifar_lab.terminal.command import run_commands
from cifar_lab.terminal.output import writable

if TYPE_CHECKING:
    from cifar_lab.landscape.maps import Outputs, Settings

Runs = Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")]
OneOrTwo = Annotated[list[Path], typer.Argument(help="One or two run folders.", metavar="RUN [RUN]")]
Images = Annotated[
    int, typer.Option(min=2, help="Number of training images, and of held-out images, to compute the loss on.")
]
Points = Annotated[int, typer.Option(min=2, help="Points along each side.")]
At = Annotated[str | None, typer.Option(help="Epochs of snapshots, joined by commas; default: first, middle and last.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the choice of images and of random directions.")]
Output = Annotated[
    Path | None,
    typer.Option(help="Folder for tables and figures; default: the folder landscape next to the first run."),
]
Allow = Annotated[list[str] | None, typer.Option(help="A package whose components may run; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the files and the rows of results as JSON.")]


def band(runs: Runs, output: Output = None) -> None:
    """Draw the band of losses over learning rates, with and without BatchNorm: the course figure."""
    from cifar_lab.landscape.batch_norm.bands import write_band

    write_band([Run(folder) for folder in runs], _folder(runs, output))


def smoothness(runs: Runs, output: Output = None) -> None:
    """Draw the three panels of arXiv:1805.11604 from the probes of runs."""
    from cifar_lab.landscape.batch_norm.smoothness import write_smoothness

    write_smoothness([Run(folder) for folder in runs], _folder(runs, output))


def surface(
    runs: OneOrTwo,
    images: Images = 500,
    points: Points = 13,
    extent: Annotated[
        float, typer.Option(min=1e-6, help="Length of the directions; at 1 each filter moves by its own norm.")
    ] = 1.0,
    seed: Seed = 0,
    output: Output = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Draw the loss around the final weights (filter-normalised) and in the plane of the training trajectory."""
    from cifar_lab.landscape import maps

    settings = _settings(runs, images, seed, output, allow, most=2)
    _show(maps.surface(runs, settings, points, extent), as_json)


def curvature(
    runs: Runs,
    images: Images = 500,
    at: At = None,
    eigenvalues: Annotated[int, typer.Option(min=1, help="Number of (algebraically) largest eigenvalues.")] = 5,
    seed: Seed = 0,
    output: Output = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Compare the Hessian's extreme eigenvalues and the curvature along the gradient with 2 / lr."""
    from cifar_lab.landscape import maps

    settings = _settings(runs, images, seed, output, allow)
    _show(maps.curvature(runs, settings, at, eigenvalues), as_json)


def interpolate(
    runs: OneOrTwo,
    images: Images = 500,
    points: Points = 13,
    seed: Seed = 0,
    output: Output = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Interpolate between a run's initial and final weights, or between the final weights of two runs."""
    from cifar_lab.landscape import maps

    settings = _settings(runs, images, seed, output, allow, most=2)
    _show(maps.interpolate(runs, settings, points), as_json)


def covariate_shift(
    runs: Runs,
    images: Images = 500,
    at: At = None,
    seed: Seed = 0,
    output: Output = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Measure how the step of the lower layers changes each layer's gradient, and the norm of the gradient."""
    from cifar_lab.landscape import maps

    settings = _settings(runs, images, seed, output, allow)
    _show(maps.covariate_shift(runs, settings, at), as_json)


def _settings(
    runs: Sequence[Path],
    images: int,
    seed: int,
    output: Path | None,
    allow: Sequence[str] | None,
    most: int | None = None,
) -> "Settings":
    """Check the number of runs and the folders."""
    if most is not None and len(runs) > most:
        raise UsageError(f"{len(runs)} runs; name one or two")
    folder = _folder(runs, output)
    from cifar_lab.landscape.maps import Settings

    return Settings(folder, images, seed, tuple(allow or ()))


def _folder(runs: Sequence[Path], output: Path | None) -> Path | None:
    """Return the output folder, or None if the default is not writable; raise `UsageError` if a folder is not a run."""
    for folder in runs:
        if not is_run(folder):
            raise UsageError(f"{folder} is not a run; name a run's folder, which has a status.json")
    return writable(Path(os.path.relpath(runs[0].resolve().parent / "landscape")), output)


def _show(outputs: "Outputs", as_json: bool) -> None:
    from cifar_lab.terminal.printing import print_table

    files, rows = outputs
    if as_json:
        print(json.dumps({"files": list(map(str, files)), "rows": [_plain(row) for row in rows]}, indent=2))
        return
    print_table([{name: _cell(value) for name, value in row.items()} for row in rows], left=("run", "name"))
    for file in files:
        print(f"- {file}")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which JSON lacks, by None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def main() -> None:
    """Run the command."""
    commands = (band, smoothness, surface, curvature, interpolate, covariate_shift)
    run_commands("landscape", commands, "Measure the loss landscape around runs and along them.")
