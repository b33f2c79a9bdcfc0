"""The report's page, in HTML, Markdown and CSV: published beside measured."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cifar_lab.analysis import figures, tables
from cifar_lab.analysis.claims import Claim, claims
from cifar_lab.analysis.comparison import compare
from cifar_lab.analysis.figures import Figure
from cifar_lab.analysis.reproduction import PROTOCOLS, Entry, Measured, Reproduction, Section
from cifar_lab.analysis.run_report import protocol_words, val_label
from cifar_lab.analysis.significance import SEEDS_FOR_TESTS, Difference, differences
from cifar_lab.runs import replacing

_COLUMNS = {
    "report": ("report: best epoch", "report: last epoch"),
    "holdout": ("holdout: chosen epoch", "holdout: last epoch"),
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: Of its file, without suffix.
        words: What it shows.
        data: SVG.
    """

    name: str
    words: str
    data: bytes

    @property
    def uri(self) -> str:
        """The picture itself, as an address."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Part:
    """A table of the page with what belongs to it.

    Attributes:
        name: Where links go.
        title: For readers.
        note: What a reader must know beforehand.
        frame: Cells as they are shown.
        differences: Between its rows.
        described: Why rows are not tested, where they are not.
        losses: Published mean training losses beside measured ones; None where none are published.
        pictures: Its figures.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    differences: pd.DataFrame | None = None
    described: str = ""
    losses: pd.DataFrame | None = None
    pictures: Sequence[Picture] = field(default=())


def write(reproduction: Reproduction, parameters: Mapping[str, int], folder: Path) -> Path:
    """Write `index.html`, `report.md`, `tables.csv` and `figures/`.

    Args:
        reproduction: What was measured.
        parameters: Each row's number of parameters, by the row's name.
        folder: Made if it does not exist.

    Returns:
        The page.

    Raises:
        OSError: The folder cannot be written.
    """
    told = _page(reproduction, parameters)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for old in (folder / "figures").glob("*.svg"):
        old.unlink()
    for part in (*told["parts"], *told["shortened"], *told["studies"]):
        for picture in part.pictures:
            (folder / "figures" / f"{picture.name}.svg").write_bytes(picture.data)
    environment = Environment(
        loader=PackageLoader("cifar_lab.analysis"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    for name in ("index.html", "report.md"):
        with replacing(folder / name) as file:
            file.write(environment.get_template(f"{name}.j2").render(told))
    with replacing(folder / "tables.csv") as file:
        numbers(reproduction, parameters).to_csv(file, index=False, lineterminator="\n")
    return folder / "index.html"


def numbers(reproduction: Reproduction, parameters: Mapping[str, int]) -> pd.DataFrame:
    """Every row at every length in numbers: accuracies from 0 to 1, over the runs of each protocol."""
    lines = []
    for section in (*reproduction.sections, *reproduction.shortened):
        for entry in section.entries:
            if not (section.is_full or entry.runs):
                continue
            low, high = (entry.noise if section.is_full else None) or (math.nan, math.nan)
            line: dict[str, Any] = {
                "table": section.table.name,
                "row": entry.row.name,
                "label": entry.row.label,
                "length": section.length,
                "published": entry.row.accuracy,
                "verdict": entry.verdict if section.is_full else "",
                "noise_low": low,
                "noise_high": high,
                "num_parameters": parameters[entry.row.name],
            }
            for protocol in PROTOCOLS:
                line[f"{protocol}/runs"] = len(entry.finished(protocol))
                for name in ("test/acc", "test/acc_final"):
                    values = entry.values(name, protocol)
                    line[f"{protocol}/{name}_mean"] = values.mean() if len(values) else math.nan
                    line[f"{protocol}/{name}_sd"] = values.std(ddof=1) if len(values) > 1 else math.nan
            lines.append({**line, "seconds": entry.mean("seconds"), "state": _state(entry)})
    return pd.DataFrame(lines)


def _page(reproduction: Reproduction, parameters: Mapping[str, int]) -> dict[str, Any]:
    finished = [entry for entry in reproduction.entries if any(run.is_finished for run in entry.runs)]
    results = [run.record.result for run in reproduction.runs]
    machines = {f"{result['hardware']['device_name']}, {result['precision']}": None for result in results}
    revisions = {str(result["git_revision"])[:12]: None for result in results if result.get("git_revision")}
    return {
        "date": date.today().isoformat(),
        "rows": len(reproduction.entries),
        "finished": len(finished),
        "runs": len(results),
        "machines": list(machines),
        "revisions": list(revisions),
        "protocols": {protocol: protocol_words(protocol) for protocol in PROTOCOLS},
        "seeds_for_tests": SEEDS_FOR_TESTS,
        "parts": [_part(section, parameters) for section in reproduction.sections],
        "shortened": [_part(section, parameters) for section in reproduction.shortened],
        "studies": list(_studies(reproduction.measured)),
        "findings": list(_findings(reproduction)),
        "claims": _claims(claims(reproduction, parameters)),
    }


def _part(section: Section, parameters: Mapping[str, int]) -> Part:
    name = section.table.name if section.is_full else f"{section.table.name}-{_slug(section.length)}"
    title = section.table.title if section.is_full else f"{section.table.title}: {section.length}"
    tested, described = _differences(section)
    return Part(
        name,
        title,
        section.table.note,
        pd.DataFrame([_cells(entry, section, parameters) for entry in section.entries]),
        tested,
        described,
        _losses(section),
        list(_pictures(section, name, title)),
    )


def _cells(entry: Entry, section: Section, parameters: Mapping[str, int]) -> dict[str, str]:
    published = entry.row.accuracy
    cells = {"row": entry.row.label, "published": "-" if published is None else f"{published:.2%}".removesuffix("%")}
    for protocol, columns in _COLUMNS.items():
        for column, metric in zip(columns, ("test/acc", "test/acc_final"), strict=True):
            cells[column] = tables.over_seeds(entry.values(metric, protocol))
    seconds = entry.mean("seconds")
    if not section.is_full:
        cells["epochs"], cells["training images"] = (_both(entry, name) for name in ("epochs", "train_size"))
    cells["parameters"] = f"{parameters[entry.row.name]:,}"
    cells["seconds"] = "-" if seconds is None else f"{seconds:,.0f}"
    if section.is_full:
        cells["measured, against published"] = _judged(entry)
    if states := _state(entry):
        cells["state"] = states
    return cells


def _judged(entry: Entry) -> str:
    if entry.row.accuracy is None:
        return "no accuracy published"
    if entry.noise is None:
        return entry.verdict
    low, high = entry.noise
    return f"{entry.verdict} ({100 * low:.2f} to {100 * high:.2f}; {entry.basis})"


def _both(entry: Entry, name: str) -> str:
    found = {run.record.result[name] for run in entry.runs if run.is_finished}
    return ", ".join(f"{value:,}" for value in sorted(found)) or "-"


def _state(entry: Entry) -> str:
    """What has become of the runs that have no result."""
    told = []
    for run in entry.unfinished:
        status = run.record.status
        reached = f", epoch {status['epoch']} of {status['epochs']}" if {"epoch", "epochs"} <= status.keys() else ""
        best = "" if run.metrics is None else f", best val/acc so far {run.metrics['val/acc'].max():.2%}"
        told.append(f"seed {run.record.seed}, {run.protocol}: {run.record.state}{reached}{best}")
    return "; ".join(told)


def _differences(section: Section) -> tuple[pd.DataFrame | None, str]:
    if len(section.entries) < 2 or not section.is_full:
        return None, ""
    lines = []
    for protocol in PROTOCOLS:
        rows = {entry.row.label: entry.values("test/acc", protocol) for entry in section.entries}
        lines += [{"protocol": protocol, **_difference(pair)} for pair in differences(rows)]
    if lines:
        return pd.DataFrame(lines), ""
    return None, f"Fewer than {SEEDS_FOR_TESTS} seeds a row: the differences are described by the table, not tested."


def _difference(pair: Difference) -> dict[str, str]:
    low, high = pair.interval
    return {
        "rows": f"{pair.first} − {pair.second}",
        "points": f"{100 * pair.mean:+.2f}",
        "95 % interval of this pair": f"{100 * low:+.2f} to {100 * high:+.2f}",
        "p (Welch)": f"{pair.p:.3g}",
        "p (Holm)": f"{pair.adjusted:.3g}",
        "told apart": "yes" if pair.is_significant else "no",
    }


def _losses(section: Section) -> pd.DataFrame | None:
    lines = []
    for entry in section.entries if section.is_full else ():
        for epoch, published in entry.row.train_loss.items():
            found = [
                float(metrics.loc[metrics["epoch"] == epoch, "train/loss"].iloc[0])
                for run in entry.runs
                if run.protocol == "report"
                and (metrics := run.metrics) is not None
                and (metrics["epoch"] == epoch).any()
            ]
            values = np.array(found)
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            lines.append(
                {
                    "row": entry.row.label,
                    "epoch": str(epoch),
                    "published mean training loss": f"{published:.3f}",
                    "measured": f"{values.mean():.3f}{spread} ({len(values)})" if found else "-",
                    "measured / published": f"{values.mean() / published:.2f}" if found else "not run",
                }
            )
    return pd.DataFrame(lines) if lines else None


def _pictures(section: Section, name: str, title: str) -> Iterator[Picture]:
    colours = figures.colours(len(section.entries))
    shades = {entry.row.label: colour for entry, colour in zip(section.entries, colours, strict=True)}
    for protocol in PROTOCOLS:
        curves = {
            entry.row.label: [run.metrics for run in entry.runs if run.protocol == protocol and run.metrics is not None]
            for entry in section.entries
        }
        shown = {label: metrics for label, metrics in curves.items() if metrics}
        if shown:
            words = f"{title}: training loss and accuracy, protocol={protocol}"
            figure = figures.compared_curves(shown, shades, "", val_label(protocol))
            yield Picture(f"{name}-{protocol}-curves", words, _svg(figure))
    tested = {
        f"{entry.row.label}, {finished[0].record.result['test/acc']:.2%}": finished[0].record.result
        for entry in section.entries
        if (finished := [run for protocol in PROTOCOLS for run in entry.finished(protocol)])
    }
    if tested:
        words = f"{title}: confusion matrices of the first seed, percent of the true class"
        counts = {label: np.array(result["confusion_matrix"]) for label, result in tested.items()}
        classes = next(iter(tested.values()))["classes"]
        yield Picture(f"{name}-confusion", words, _svg(figures.confusion_matrices(counts, classes)))


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return file.getvalue()


def _studies(runs: Sequence[Measured]) -> Iterator[Part]:
    """A table for each controlled ablation, as the command `table` has it, and its rows tested."""
    studies = {run.record.options.get("study"): None for run in runs if run.record.run is not None}
    for study in sorted(filter(None, studies)):
        records = [run.record for run in runs if run.record.options.get("study") == study and run.record.run]
        if any(record.options.get("data") != "cifar10" for record in records):
            continue
        comparison = compare(records)
        accuracies = {row.label: row.values("test/acc") for row in comparison.rows}
        pairs = [_difference(pair) for pair in differences(accuracies)]
        few = f"Fewer than {SEEDS_FOR_TESTS} seeds a row: the differences are described by the table, not tested."
        facts = " ".join(line.removeprefix("- ") + "." for line in tables.facts(comparison))
        yield Part(
            f"study-{study}",
            f"study={study}",
            facts,
            tables.table(comparison),
            pd.DataFrame(pairs) if pairs else None,
            "" if pairs else few,
        )


def _findings(reproduction: Reproduction) -> Iterator[str]:
    """A sentence for each published number that its printed settings did not give."""
    told = set()
    for entry in reproduction.entries:
        if entry.verdict in ("lower", "higher") and entry.noise is not None and entry.row.name not in told:
            told.add(entry.row.name)
            low, high = entry.noise
            measured = tables.over_seeds(entry.values("test/acc", "report"))
            last = tables.over_seeds(entry.values("test/acc_final", "report"))
            yield (
                f"{entry.row.label} ({entry.row.name}): published {entry.row.accuracy:.2%}; the printed settings give "
                f"{measured} in the best epoch, {last} in the last. The published number is outside "
                f"{100 * low:.2f} to {100 * high:.2f}, {entry.basis}."
            )


def _claims(told: Sequence[Claim]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"claim": claim.words, "decided by": claim.decides, "measured": claim.numbers, "verdict": claim.verdict}
            for claim in told
        ]
    )


def _code(words: str) -> Markup:
    """Put what stands between backticks as code, in HTML."""
    parts = words.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def _slug(words: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in words.lower()).split())
