"""Tables on a terminal."""

from collections.abc import Callable, Collection

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text


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
