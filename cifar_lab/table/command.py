"""Compare runs: `python -m cifar_lab.table outputs/loss-seed`, or any runs: `python -m cifar_lab.table RUN RUN...`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, Sweep, find, is_run
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import writable

if TYPE_CHECKING:
    from cifar_lab.table.comparison import Comparison


def table(
    paths: Annotated[list[Path], typer.Argument(help="The folder of a sweep, runs, or folders to search for runs.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write table.md, table.csv and figures; default: PATHS, if it is one folder."),
    ] = None,
    metric: Annotated[
        Literal["test/acc", "test/acc_tta"],
        typer.Option(help="The compared test accuracy; test/acc_tta is that of runs with tta=."),
    ] = "test/acc",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; writes files only with --output.")] = False,
) -> None:
    """Compare runs: a row per composition with mean and deviation over seeds, a column per varying setting."""
    from cifar_lab.table.output import show, write

    comparison = compare_folders(paths, metric)
    is_sweep = len(paths) == 1 and not is_run(paths[0]) and not as_json
    folder = writable(paths[0], output) if is_sweep else output
    if as_json:
        print(comparison.frame().to_json(orient="records", indent=2))
        if folder is not None:
            write(comparison, folder)
    else:
        show(comparison, folder)


def compare_folders(paths: Iterable[Path], metric: str = "test/acc") -> "Comparison":
    """Compare all runs in the folders; a job of a sweep without a run also gets a row.

    Raises:
        ValueError: A path is not a folder, or there is no run.
    """
    from cifar_lab.table.records import collect

    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name a run, or a folder with runs")
    places: dict[Path, Run | Sweep] = {}
    for path in paths:
        place = path.resolve()
        places |= {place / one.folder.relative_to(path): one for one in find(path)}
    sweeps = {place: one for place, one in places.items() if isinstance(one, Sweep)}
    runs: dict[Path | None, list[Run]] = {place: [] for place in (*sweeps, None)}
    for place, one in places.items():
        if isinstance(one, Run):  # a run in nested sweeps belongs to the outer one
            runs[next((above for above in reversed(place.parents) if above in sweeps), None)].append(one)
    records = collect([(runs[place], sweep.jobs()) for place, sweep in sweeps.items()] + [(runs[None], [])])
    if not records:
        raise UsageError(f"no run in {', '.join(map(str, paths))}; a run's folder has a status.json")
    from cifar_lab.table.comparison import compare

    return compare(records, metric)


def report(folder: Path) -> None:
    """Write the table and figures of a sweep with at least one run, and print the table."""
    from cifar_lab.table.output import show

    show(compare_folders([folder]), folder)


def main() -> None:
    """Entry point of the command line."""
    run_command(table)
