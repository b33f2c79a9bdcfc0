"""How commands that read runs behave: typer's command lines, mistakes in one line, exit codes 0, 1 and 2."""

import functools
import sys
from collections.abc import Callable, Collection
from typing import ParamSpec

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

EXIT_USAGE = 2

P = ParamSpec("P")


def reporting_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command say what the user can mend, a `ValueError` or an `OSError`, in one line, and exit with 2."""

    @functools.wraps(command)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            command(*arguments, **options)
        except (ValueError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            raise typer.Exit(EXIT_USAGE) from None

    return wrapped


def run(command: Callable[..., None]) -> None:
    """Run a command as the process's command line; `python -m cifar_lab.<name>` does.

    Args:
        command: Its parameters, annotated for typer, are the arguments and options.

    Raises:
        SystemExit: Always, with the exit code.
    """
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    application.command()(command)
    application()


def print_table(rows: pd.DataFrame, left: Collection[str], colours: Callable[[str], str] | None = None) -> None:
    """Print a table, as wide as it needs to be.

    Args:
        rows: Of text.
        left: Columns that are set to the left, as words are.
        colours: Gives rich's colour for what stands in the column `state`.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows.columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    for row in rows.to_dict("records"):
        colour = colours(row["state"]) if colours else ""
        table.add_row(*(Text(value, colour if column == "state" else "") for column, value in row.items()))
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, console.measure(table, options=console.options.update_width(100_000)).maximum)
    console.print(table)
