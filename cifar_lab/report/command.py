"""Compare runs with the published report: `python -m cifar_lab.report outputs` writes `report/index.html`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Archive, find_runs
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import writable

if TYPE_CHECKING:
    from cifar_lab.report.reproduction import Reproduction

RESULTS = Path("docs/results")


def report(
    paths: Annotated[list[Path], typer.Argument(help="Runs, or folders to search for runs.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write index.html, report.md, tables.csv and figures; default: report/."),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="The archive of finished runs, read in addition to PATHS; it may be missing.")
    ] = RESULTS,
    keep: Annotated[bool, typer.Option("--keep", help="Add the ended runs to the archive of --results.")] = False,
) -> None:
    """Compare runs with the published rows that they reproduce: tables, verdicts, tests, curves, claims."""
    folder = writable(Path("report"), output)
    archive = Archive(results)
    reproduction = read(paths, archive)

    from cifar_lab.report.claims.landscape import landscape
    from cifar_lab.report.page import writing

    if keep:
        of_landscape = landscape(reproduction.measured).runs
        runs = (*reproduction.runs, *reproduction.of_studies, *reproduction.of_bases, *of_landscape)
        archive.add(run for run in runs if run.has_ended and run.folder is not None)
        for run in of_landscape:
            archive.add_arrays(run)
    for verdict, entries in reproduction.verdicts.items():
        print(f"{verdict:15} {len(entries)}: {', '.join(entry.row.label for entry in entries)}")
    for run in reproduction.unreadable:
        print(f"unreadable      {run.folder}: {run.status['error']}")
    if folder is not None:
        page = writing.write(reproduction, parameters(), folder, archive.figures_folder if keep else None)
        print(f"report          {page}")


def read(paths: Iterable[Path | str], archive: Archive | None = None) -> "Reproduction":
    """Compare the runs in folders and in an archive with the published rows.

    Raises:
        ValueError: A path is not a folder, or the archive is damaged.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name a run, or a folder with runs")

    from cifar_lab.report.published import tables
    from cifar_lab.report.reproduction import reproduce
    from cifar_lab.table.records import gather

    runs = {run.folder.resolve(): run for path in paths for run in find_runs(path)}
    return reproduce(tables(), gather(runs.values(), archive))


def parameters() -> dict[str, int]:
    """Return the number of parameters of every published row and hypothesis, by row name."""
    from omegaconf import OmegaConf

    from cifar_lab.config import build
    from cifar_lab.report.published import tables

    published = [row for table in tables() for row in table.rows]
    rows = [*published, *(hypothesis.row for row in published for hypothesis in row.hypotheses)]
    models: dict[str, Any] = {row.name: OmegaConf.create(row.config["model"]) for row in rows}
    return {name: sum(weight.numel() for weight in build(model).parameters()) for name, model in models.items()}


def main() -> None:
    """Entry point of the command line."""
    run_command(report)
