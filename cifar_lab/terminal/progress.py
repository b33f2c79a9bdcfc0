"""Progress and remaining time of a command: a bar on a terminal, a line every 30 s elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from cifar_lab.terminal.printing import bar_console, printable

LINE_SECONDS = 30.0
Item = TypeVar("Item", covariant=True)
Show = Callable[[str, float], None]


class Sized(Protocol[Item]):
    """Iterable of known length, such as a list or a data loader."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Item]: ...


def clock(seconds: float) -> str:
    """Format a duration as `1:02:03`, or `2:03` below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def span(seconds: float) -> str:
    """Format a forecast in at most two units: `45 s`, `12 min`, `2 h 10 min`, `3 d 4 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


@contextmanager
def progress(title: str, units: float, *, bar: bool = True) -> Iterator[Show]:
    """Yield a function that shows the number of finished units and the current one's name on standard error.

    Args:
        title: Title of the bar.
        units: Total number of units; 0 if it is unknown, which shows nothing.
        bar: Whether to show a bar on a terminal; parallel processes would overwrite each other's bars.
    """
    console = bar_console(stderr=True)
    title = printable(title)
    if units and bar and console.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        # Rich's markup would read `[...]` in a folder's name as a style.
        label = TextColumn("{task.description}", markup=False)
        columns = (label, BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
        # Standard output may be a file, which rich must not redirect.
        with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as live:
            task = live.add_task(title, total=units)
            yield lambda name, done: live.update(task, completed=done, description=_named(title, name))
        return
    started = last = time.perf_counter()

    def show(name: str, done: float) -> None:
        nonlocal last
        now = time.perf_counter()
        if units and done and now >= last + LINE_SECONDS:
            left = (now - started) * (units - done) / done
            text = f"{_named(title, name)}: {done / units:.0%} done, {clock(left)} left"
            print(text, file=sys.stderr, flush=True)
            last = now

    yield show


def with_progress(items: Sized[Item], title: str) -> Iterator[Item]:
    """Yield the items, showing `progress` over their number."""
    with progress(title, len(items)) as show:
        for done, item in enumerate(items, start=1):
            yield item
            show("", done)


def _named(title: str, name: str) -> str:
    return f"{title}: {printable(name)}" if name else title
