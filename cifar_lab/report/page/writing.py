"""Writes the report's page as HTML, Markdown and CSV."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from torch.utils.tensorboard import SummaryWriter

from cifar_lab.report.claims.bases import bases
from cifar_lab.report.claims.claims import Claim, claims
from cifar_lab.report.claims.evidence import INCONCLUSIVE, RULE, UNTESTED
from cifar_lab.report.claims.evidence import VERDICTS as CLAIM_VERDICTS
from cifar_lab.report.claims.landscape import landscape
from cifar_lab.report.page import chapters
from cifar_lab.report.page.figures import Picture, compute, glance
from cifar_lab.report.page.parts import names, part, state, studies
from cifar_lab.report.reproduction import PROTOCOLS, Entry, Reproduction
from cifar_lab.runs import Record
from cifar_lab.runs.files import replacing, write_figure
from cifar_lab.runs.labels import protocol_words, val_label
from cifar_lab.statistics.significance import SEEDS_FOR_TESTS
from cifar_lab.table.comparison import mean_and_sd
from cifar_lab.terminal.progress import with_progress


def write(
    reproduction: Reproduction, parameters: Mapping[str, int], folder: Path, kept_figures: Path | None = None
) -> Path:
    """Write `index.html`, whose path is returned, `report.md`, `tables.csv`, `figures/` and `tensorboard/`.

    Args:
        reproduction: The measured runs.
        parameters: Number of parameters by row name.
        folder: Created if it does not exist.
        kept_figures: Folder for small PNG files of the full-length figures; None to write none.

    Raises:
        OSError: The folder cannot be written.
    """
    page = _page(reproduction, parameters)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    whole: list[Picture] = [*page["glance"], *(picture for one in page["parts"] for picture in one.pictures)]
    on_bases = [study for base in page["bases"] for study in base["studies"]]
    others = [picture for one in (*page["shortened"], *page["studies"], *on_bases) for picture in one.pictures]
    every = [*whole, *others, *page["chapter"]["pictures"]]
    for picture in every:
        picture.reuse(folder / "figures")
    for old in (folder / "figures").glob("*.svg"):
        old.unlink()
    for picture in with_progress(every, "drawing the report's figures"):
        picture.write(folder / "figures")
    if kept_figures is not None:
        of_bases = [picture for study in on_bases for picture in study.pictures]
        _keep([*whole, *of_bases, *page["chapter"]["pictures"]], kept_figures)
    environment = Environment(
        loader=PackageLoader("cifar_lab.report.page"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    for name in ("index.html", "report.md"):
        with replacing(folder / name) as file:
            file.write(environment.get_template(f"{name}.j2").render(page))
    _dashboards(reproduction, folder / "tensorboard")
    with replacing(folder / "tables.csv") as file:
        numbers(reproduction, parameters).to_csv(file, index=False, lineterminator="\n")
    return folder / "index.html"


def _keep(pictures: Sequence[Picture], folder: Path) -> None:
    """Write pictures as small PNG files, with a gallery page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = ["# Gallery\n\nWritten by `make gallery` from the runs in `docs/results`."]
    for picture in pictures:
        write_figure(picture.draw, folder / f"{picture.name}.png", dpi=80)
        page.append(f"![{picture.words}]({picture.name}.png)\n\n*{picture.words}*")
    with replacing(folder / "README.md") as file:
        file.write("\n\n".join(page) + "\n")


def numbers(reproduction: Reproduction, parameters: Mapping[str, int]) -> pd.DataFrame:
    """Return the numbers of every row and hypothesis at every length: accuracies from 0 to 1, per protocol."""
    lines = []
    hypotheses = {one.row.name: one.name for entry in reproduction.entries for one in entry.row.hypotheses}
    for section in (*reproduction.sections, *reproduction.shortened):
        for entry in section.entries:
            rows = [(entry, section.is_full)] if section.is_full or entry.runs else []
            for one, is_full in (*rows, *((tested, True) for tested in entry.hypotheses)):
                key = {"table": section.table.name, "length": section.length}
                key["hypothesis"] = hypotheses.get(one.row.name, "")
                lines.append({**key, **_numbers(one, is_full), "num_parameters": parameters[one.row.name]})
    return pd.DataFrame(lines)


def _numbers(entry: Entry, is_full: bool) -> dict[str, Any]:
    low, high = (entry.noise if is_full else None) or (math.nan, math.nan)
    line: dict[str, Any] = {
        "row": entry.row.name,
        "label": entry.row.label,
        "published": entry.row.accuracy,
        "verdict": entry.verdict if is_full else "",
        "noise_low": low,
        "noise_high": high,
    }
    for protocol in PROTOCOLS:
        line[f"{protocol}/runs"] = len(entry.finished(protocol))
        for name in ("test/acc", "test/acc_final"):
            mean, sd = mean_and_sd(entry.values(name, protocol))
            line |= {f"{protocol}/{name}_mean": mean, f"{protocol}/{name}_sd": sd}
    return {**line, "seconds": entry.mean("seconds"), "trained_on": ", ".join(entry.machines), "state": state(entry)}


def _dashboards(reproduction: Reproduction, folder: Path) -> None:
    """Write the curves of every row for TensorBoard, with charts of each table, and replace those of an earlier report.

    Charts of custom scalars select tags, not runs. So a chart of one table needs tags of that table, which are written
    here instead of in the runs' own event files.
    """
    for old in folder.glob("**/events.out.tfevents.*"):
        old.unlink()
    layout: dict[str, dict[str, list[object]]] = {}
    curves: dict[str, list[tuple[str, Record]]] = {}
    for section in (*reproduction.sections, *reproduction.shortened):
        name, title = names(section)
        measured = [(entry.row.name, run) for entry in section.entries for run in entry.runs if run.metrics is not None]
        for row, run in measured:
            curves.setdefault(f"{row},protocol={run.protocol},seed={run.seed}", []).append((name, run))
        if measured:
            there = {run.protocol for _, run in measured}
            labels = {one: val_label(one == "holdout") for one in PROTOCOLS if one in there}
            layout[title] = {
                **{f"{label} accuracy": ["Multiline", [f"{name}/{one}/val/acc$"]] for one, label in labels.items()},
                "training loss": ["Multiline", [f"{name}/.*/train/loss$"]],
            }
    for label, runs in curves.items():
        with SummaryWriter(str(folder / label.replace("/", "_"))) as writer:
            writer.add_custom_scalars(layout)
            for name, run in runs:
                assert run.metrics is not None
                for quantity in ("val/acc", "train/loss"):
                    known = run.metrics[["epoch", quantity]].dropna()
                    for epoch, value in zip(known["epoch"], known[quantity], strict=True):
                        writer.add_scalar(f"{name}/{run.protocol}/{quantity}", float(value), int(epoch))


def _page(reproduction: Reproduction, parameters: Mapping[str, int]) -> dict[str, Any]:
    """Return the variables of the templates."""
    runs = {
        run.identity: run
        for run in (*reproduction.runs, *reproduction.of_studies, *reproduction.of_bases)
        if run.has_ended
    }
    results = [run.result for run in runs.values() if run.is_finished]
    machines = {f"{result['hardware']['device_name']}, {result['precision']}": None for result in results}
    revisions = {str(result["git_revision"])[:12]: None for result in results if result.get("git_revision")}
    measured = landscape(reproduction.measured)
    every_claim = claims(reproduction, parameters, measured)
    decided = Counter(claim.verdict for claim in every_claim)
    of_bases = bases(reproduction.of_bases)
    return {
        "date": date.today().isoformat(),
        "rows": len(reproduction.entries),
        "ended": sum(any(run.has_ended for run in entry.runs) for entry in reproduction.entries),
        "runs": len(runs),
        "machines": list(machines),
        "revisions": list(revisions),
        "protocols": {protocol: protocol_words(protocol, protocol == "holdout") for protocol in PROTOCOLS},
        "seeds_for_tests": SEEDS_FOR_TESTS,
        "glance": [*glance(reproduction.sections), *compute(reproduction.sections, of_bases)],
        "selection": _selection(reproduction),
        "parts": [part(section, parameters) for section in reproduction.sections],
        "shortened": [part(section, parameters) for section in reproduction.shortened],
        "studies": list(studies(reproduction.of_studies)),
        "bases": [{**chapters.base(one), "claims": _claims(one.claims)} for one in of_bases],
        "unreadable": len(reproduction.unreadable),
        "findings": list(chapters.findings(reproduction)),
        "row_verdicts": _counted({verdict: len(entries) for verdict, entries in reproduction.verdicts.items()}),
        "by_chance": reproduction.by_chance,
        "claim_rule": RULE,
        "claims": _claims(every_claim),
        "claim_verdicts": _counted({verdict: decided[verdict] for verdict in CLAIM_VERDICTS}),
        "chapter": chapters.batch_norm(measured),
        "chapter_claims": _claims([claim for claim in every_claim if "BatchNorm" in claim.words]),
    }


def _selection(reproduction: Reproduction) -> str:
    """Describe the gain from choosing the epoch on the test set; empty if no run did."""
    runs = {run.identity: run.result for entry in reproduction.entries for run in entry.finished("report")}
    chosen = [result for result in runs.values() if result["best_epoch"] is not None]
    gains = np.array([100 * (result["test/acc"] - result["test/acc_final"]) for result in chosen])
    if not len(gains):
        return ""
    number = f"{len(gains)} run{'s' * (len(gains) > 1)}"
    return (
        f"Choosing the epoch on the test set gains {np.median(gains):.2f} points: the median gap between the best and "
        f"the last epoch over {number} ({gains.min():.2f} to {gains.max():.2f})."
    )


def _claims(every: Sequence[Claim]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "claim": claim.words,
                "criterion": claim.decides,
                "measured": claim.numbers,
                "verdict": f"{claim.verdict} ({claim.note})" if claim.note else claim.verdict,
                "command to decide it": f"`{claim.command}`"
                * bool(claim.command and claim.verdict in (INCONCLUSIVE, UNTESTED)),
            }
            for claim in every
        ]
    )


def _counted(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items() if count)


def _code(words: str) -> Markup:
    """Format text between backticks as HTML code."""
    parts = words.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
