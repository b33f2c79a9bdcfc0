"""Tables and notes on a terminal."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_GAP = "  "


def print_table(
    rows: Sequence[Mapping[Any, str]], left: Collection[str], colours: Callable[[str], str] | None = None
) -> None:
    """Print a table without wrapping it.

    Args:
        rows: At least one, all with the same columns.
        left: Columns aligned to the left.
        colours: Maps a value of the column `state` to a colour of rich.
    """
    # rich's own table takes half a minute for 10,000 rows.
    names = list(map(str, rows[0]))
    cells = [names, *(list(row.values()) for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        line = Text()
        for name, width, cell in zip(names, widths, row, strict=True):
            padded = set_cell_size(cell, width) if name in left else " " * (width - cell_len(cell)) + cell
            line.append(padded, colours(cell) if colours and name == "state" and row is not names else None)
            line.append(_GAP)
        line.rstrip()
        lines.append(line)
    lines[0].stylize("bold")
    console = _Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Re-raise, so that the command ends with 0; rich would end it with 1."""
        raise


def bar_console(*, stderr: bool = False) -> Console:
    """Return a console for a progress bar; unlike rich's, FORCE_COLOR does not make a file or pipe a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, soft_wrap=True, highlight=False, force_terminal=None if stream.isatty() else False)


class Complaints:
    """Prints errors about single inputs to standard error and counts them, while the others are processed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, name: str, reason: str) -> None:
        """Print an error."""
        self.count += 1
        print(f"error: {printable(name)}: {printable(reason)}", file=sys.stderr)


def note(text: str) -> None:
    """Print a note on standard error."""
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return text as one printable line; file names may contain line breaks and undecodable bytes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
