"""Output of comparisons: the table on the terminal and in files, and figures."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from cifar_lab.figures import Colour, Figure
from cifar_lab.runs import Sweep, replacing
from cifar_lab.runs.files import write_figure
from cifar_lab.runs.labels import val_label
from cifar_lab.statistics.accuracies import accuracy_interval
from cifar_lab.table import figures, pairs, text
from cifar_lab.table.colours import colours_by_name
from cifar_lab.table.comparison import Comparison, Row, by_name, one_loss
from cifar_lab.terminal.printing import print_table

_INTERVALS = (
    "95 % intervals: Student's t over seeds for three runs or more, else the span of each run's Wilson interval"
)

_MOST_DRAWN = 20
_BEST_DRAWN = 10  # if there are more rows than `_MOST_DRAWN`: more lines are hard to distinguish


def write(comparison: Comparison, folder: Path) -> None:
    """Write the table of at least one run as Markdown and CSV, and the figures that have data.

    The folder is created if it does not exist. Its name is the title.

    Raises:
        OSError: The folder cannot be written.
    """
    sweep = Sweep(folder)
    folder.mkdir(parents=True, exist_ok=True)
    title = folder.resolve().name
    drawn_part, words = drawn_rows(comparison), title
    if len(drawn_part.rows) < len(comparison.rows):
        words = f"{title}: the {_BEST_DRAWN} of {len(comparison.rows):,} rows with the highest test accuracy"
    drawn = {sweep.accuracy_figure: accuracies, sweep.curves_figure: curves}
    # Replaced atomically, because other processes of the sweep may write the same files.
    paths_of = [write_figure(partial(draw, drawn_part, words), path, dpi=120) for path, draw in drawn.items()]
    pictures = [path.name for paths in paths_of for path in paths]
    with replacing(sweep.table_markdown) as file:
        file.write(text.markdown(comparison, title, folder, pictures))
    with replacing(sweep.table_csv) as file:
        comparison.frame().to_csv(file, index=False, lineterminator="\n")


def show(comparison: Comparison, folder: Path | None) -> None:
    """Print the table and the common settings of its runs, and write them if there is a folder; raise like `write`."""
    print_table(text.table(comparison).to_dict("records"), left=(*comparison.columns, "protocol", "state"))
    for line in (*text.facts(comparison), *pairs.described(comparison.rows, comparison.metric)):
        print(line)
    if folder is not None:
        write(comparison, folder)
        print(f"- table and figures: {Sweep(folder).table_markdown}", flush=True)


def curves(comparison: Comparison, title: str) -> Figure | None:
    """Draw the curves of every run with metrics; return None if there is none."""
    named = by_name(comparison.rows, title)
    every = {
        name: [record.metrics for record in row.records if record.metrics is not None] for name, row in named.items()
    }
    metrics = {name: frames for name, frames in every.items() if frames}
    if not metrics:
        return None
    measured_on = " or ".join(sorted({val_label(row.holds_out) for row in comparison.rows if row.protocol}))
    shades = _colours(named)
    records = [record for row in comparison.rows for record in row.records]
    return figures.compared_curves(metrics, shades, title, measured_on, has_one_loss=one_loss(records))


def accuracies(comparison: Comparison, title: str) -> Figure | None:
    """Draw the test accuracies of every composition with a result; return None if there is none."""
    named = by_name(comparison.rows, title)
    rows = {name: row for name, row in named.items() if len(row.values(comparison.metric))}
    if not rows:
        return None
    values = {name: row.values(comparison.metric) for name, row in rows.items()}
    sizes = {name: int(row.values("test_size").min()) for name, row in rows.items()}
    intervals = np.array([accuracy_interval(values[name], sizes[name]) for name in rows])
    return figures.compared_accuracies(values, intervals, _colours(named), title, _INTERVALS)


def _colours(rows: Mapping[str, Row]) -> dict[str, Colour]:
    return colours_by_name({name: row.records for name, row in rows.items()})


def drawn_rows(comparison: Comparison) -> Comparison:
    """Return all rows or, if they are too many, those with the highest mean test accuracy, in table order."""
    if len(comparison.rows) <= _MOST_DRAWN:
        return comparison
    means = [values.mean() if len(values := row.values(comparison.metric)) else -1.0 for row in comparison.rows]
    best = np.sort(np.argsort(means, kind="stable")[-_BEST_DRAWN:])
    return Comparison(comparison.columns, tuple(comparison.rows[index] for index in best), comparison.metric)
