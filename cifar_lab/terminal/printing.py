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
        colours: Maps a value of the column `state` to rich's colour.
    """
    # rich's own table takes half a minute for ten thousand rows.
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
    """A console for a progress bar, which FORCE_COLOR does not make of a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, soft_wrap=True, highlight=False, force_terminal=None if stream.isatty() else False)


class Complaints:
    """Errors about single inputs, printed to standard error and counted, while the others are processed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, name: str, reason: str) -> None:
        """Print one."""
        self.count += 1
        print(f"error: {printable(name)}: {printable(reason)}", file=sys.stderr)


def note(text: str) -> None:
    """Print a note on standard error."""
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text as one printable line; a file's name may hold line breaks and undecodable bytes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
