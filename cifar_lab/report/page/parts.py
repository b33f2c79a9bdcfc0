"""Tables of the page: a published table or a study, with differences, losses and figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cifar_lab.report.page.figures import Picture, curves, pictures
from cifar_lab.report.reproduction import PROTOCOLS, Entry, Section
from cifar_lab.runs import Record
from cifar_lab.runs.labels import val_label
from cifar_lab.statistics.significance import SEEDS_FOR_TESTS, differences
from cifar_lab.table import text
from cifar_lab.table.comparison import compare

_COLUMNS = {
    "report": ("report: best epoch", "report: last epoch"),
    "holdout": ("holdout: chosen epoch", "holdout: last epoch"),
}
_UNTESTED = f"Differences are not tested, because rows have fewer than {SEEDS_FOR_TESTS} seeds."
_SOME_UNTESTED = f"Rows with fewer than {SEEDS_FOR_TESTS} seeds under a protocol are not tested."


@dataclass(frozen=True)
class Part:
    """A table of the page."""

    name: str  # anchor of links
    title: str
    note: str  # precedes the table
    frame: pd.DataFrame  # cells as text
    differences: pd.DataFrame | None  # between rows; None if none is tested
    described: str  # why some rows are not tested; empty if all are
    losses: pd.DataFrame | None  # published and measured mean training losses; None if none is published
    pictures: Sequence[Picture]


def names(section: Section) -> tuple[str, str]:
    """Return the name of a section in links and files, and its title."""
    name, title = section.table.name, section.table.title
    return (name, title) if section.is_full else (f"{name}-{_slug(section.length)}", f"{title}: {section.length}")


def part(section: Section, parameters: Mapping[str, int]) -> Part:
    """Return a published table at one length; only full-length runs are compared with published numbers.

    `parameters` holds the number of parameters by row name.
    """
    name, title = names(section)
    entries = [entry for entry in section.entries if section.is_full or entry.runs]
    rows = {}
    if section.is_full and len(entries) > 1:
        rows = {
            protocol: {one.row.label: one.values("test/acc", protocol) for one in entries} for protocol in PROTOCOLS
        }
    return Part(
        name,
        title,
        section.table.note if section.is_full else "",
        pd.DataFrame([_cells(entry, section, parameters) for entry in entries]),
        *_differences(rows),
        _losses(section),
        list(pictures(section, name, title)),
    )


def _cells(entry: Entry, section: Section, parameters: Mapping[str, int]) -> dict[str, str]:
    published, seconds = entry.row.accuracy, entry.mean("seconds")
    cells = {"row": entry.row.label}
    if section.is_full:
        cells["published"] = "-" if published is None else f"{100 * published:.2f}"
    for protocol, columns in _COLUMNS.items():
        for column, metric in zip(columns, ("test/acc", "test/acc_final"), strict=True):
            cells[column] = text.over_seeds(entry.values(metric, protocol))
        if section.is_full and protocol == "report":
            cells["verdict"] = judged(entry)
    if not section.is_full:
        cells["epochs"], cells["training images"] = (_both(entry, name) for name in ("epochs", "train_size"))
    cells["parameters"] = f"{parameters[entry.row.name]:,}"
    cells["seconds"] = "-" if seconds is None else f"{seconds:,.0f}"
    cells["trained on"] = ", ".join(entry.machines) or "-"
    if words := state(entry):
        cells["state"] = words
    return cells


def judged(entry: Entry) -> str:
    """Format the verdict on a published accuracy with the interval behind it."""
    if entry.row.accuracy is None:
        return "no accuracy published"
    if entry.noise is None:
        is_elsewhere = entry.verdict == "not run" and entry.finished("holdout")
        return "not run (under protocol=report)" if is_elsewhere else entry.verdict
    low, high = entry.noise
    return f"{entry.verdict} ({100 * low:.2f} to {100 * high:.2f}; {entry.basis})"


def _both(entry: Entry, name: str) -> str:
    sizes = {run.result[name] for run in entry.runs if run.is_finished}
    return ", ".join(f"{value:,}" for value in sorted(sizes)) or "-"


def state(entry: Entry) -> str:
    """Describe the state of each run without a result."""
    sentences = []
    for run in entry.runs:
        if not run.is_finished:
            status = run.status
            reached = f", epoch {status['epoch']} of {status['epochs']}" if {"epoch", "epochs"} <= status.keys() else ""
            best = run.metrics["val/acc"].max() if run.metrics is not None else np.nan
            so_far = "" if np.isnan(best) else f", {val_label(run.holds_out)} so far {best:.2%}"
            sentences.append(f"seed {run.seed}, {run.protocol}: {run.state}{reached}{so_far}")
    return "; ".join(sentences)


def _differences(of_protocols: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[pd.DataFrame | None, str]:
    """Return the tested differences of rows under each protocol ('' if there is one), and why others are not tested."""
    lines = []
    for protocol, rows in of_protocols.items():
        for pair in differences(rows):
            low, high = pair.interval
            cells = {
                "rows": f"{pair.first} − {pair.second}",
                "points": f"{100 * pair.mean:+.2f}",
                "95 % interval of this pair": f"{100 * low:+.2f} to {100 * high:+.2f}",
                "p (Welch)": f"{pair.p:.3g}",
                "p (Holm)": f"{pair.adjusted:.3g}",
                "significant": "yes" if pair.is_significant else "no",
            }
            lines.append({"protocol": protocol, **cells} if protocol else cells)
    numbers = [len(values) for rows in of_protocols.values() for values in rows.values()]
    described = _SOME_UNTESTED if lines else _UNTESTED
    return (
        pd.DataFrame(lines) if lines else None,
        described if any(0 < number < SEEDS_FOR_TESTS for number in numbers) else "",
    )


def _losses(section: Section) -> pd.DataFrame | None:
    lines = []
    for entry in section.entries if section.is_full else ():
        for epoch, published in entry.row.train_loss.items():
            values = entry.train_losses(epoch)
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            lines.append(
                {
                    "row": entry.row.label,
                    "epoch": str(epoch),
                    "published mean training loss": f"{published:.3f}",
                    "measured": f"{values.mean():.3f}{spread} ({len(values)})" if len(values) else "-",
                    "measured / published": f"{values.mean() / published:.2f}" if len(values) else "not run",
                }
            )
    return pd.DataFrame(lines) if lines else None


def studies(runs: Sequence[Record]) -> Iterator[Part]:
    """Yield a table for each study at one length and protocol, with the rows of `cifar_lab.table` and tests."""
    groups: dict[tuple[str, float, float, str], list[Record]] = {}
    for run in runs:
        base = run.options.get("experiment")
        length = run.settings.get("epochs", 0), run.settings.get("data.train_size") or 0
        words = f"study={run.options['study']}" + (f" experiment={base}" if base else "")
        groups.setdefault((words, *length, run.protocol), []).append(run)
    for (words, epochs, images, protocol), of_study in sorted(groups.items(), key=lambda group: group[0]):
        comparison = compare(of_study)
        part_of = f", {images:,.0f} training images" if images else ""
        title = f"{words}: {epochs:g} epochs{part_of}"
        name = _slug(f"{title} {protocol}")
        yield Part(
            name,
            f"{title}, protocol={protocol}",
            " ".join(f"{line.removeprefix('- ').rstrip('.')}." for line in text.facts(comparison)),
            text.table(comparison),
            *_differences({"": {row.label: row.values("test/acc") for row in comparison.rows}}),
            None,
            list(curves({row.label: row.records for row in comparison.rows}, f"{name}-curves", title, protocol)),
        )


def _slug(words: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in words.lower()).split())
