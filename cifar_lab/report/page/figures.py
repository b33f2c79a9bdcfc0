"""Figures of the page: curves and confusion matrices of a table, and an overview of all accuracies."""

import base64
import hashlib
import io
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import cifar_lab
from cifar_lab.evaluate.figures import confusion_matrices
from cifar_lab.figures import TRAIN_COLOUR, VAL_COLOUR, colours, painted
from cifar_lab.report.claims.bases import Base, pflop
from cifar_lab.report.reproduction import PROTOCOLS, Section
from cifar_lab.runs import Record
from cifar_lab.runs.labels import val_label
from cifar_lab.table.colours import colours_by_name
from cifar_lab.table.comparison import one_loss
from cifar_lab.table.figures import compared_curves

_EMPTY = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
_LINEAR = 1.0  # points on both sides on a linear scale; logarithmic beyond, because an outlier would hide the others
# Background of a number, which may cover the zero line.
_PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
_SPAN = 12.0  # points below the best run that the axis covers
_PFLOPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_TICKS = (-30, -10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30)


class _OfValues(pickle.Pickler):
    """Pickles the data of a picture; raises `PicklingError` if the data is in files, which may change."""

    def persistent_id(self, obj: object) -> None:
        if isinstance(obj, Record | Path):
            raise pickle.PicklingError


@cache
def _drawing_code() -> bytes:
    """Return matplotlib's version and the source code of all figures."""
    sources = sorted(Path(cifar_lab.__file__).parent.rglob("figures.py"))
    return matplotlib.__version__.encode() + b"".join(source.read_bytes() for source in sources)


@dataclass(frozen=True)
class Picture:
    """A figure of the page, with its file name (without suffix) and caption."""

    name: str
    words: str
    draw: Callable[[], Figure] = field(repr=False)

    @cached_property
    def data(self) -> bytes:
        """SVG; an empty image if drawing fails."""
        return painted(self.draw, self.name, format="svg", metadata={"Date": None}) or _EMPTY

    def write(self, folder: Path) -> None:
        """Write the picture, with a hash of its data and drawing code."""
        (folder / f"{self.name}.svg").write_bytes(self.data + (self._mark if self.data != _EMPTY else b""))

    @cached_property
    def _mark(self) -> bytes:
        """XML comment with a hash of drawing code and values; empty if the values cannot be hashed."""
        content = io.BytesIO()
        try:
            _OfValues(content, protocol=5).dump(self.draw)
        except (pickle.PicklingError, AttributeError, TypeError):
            return b""
        return f"<!-- {hashlib.sha256(_drawing_code() + content.getvalue()).hexdigest()} -->\n".encode()

    def reuse(self, folder: Path) -> None:
        """Load the picture from the folder of an earlier report if it is the same, because drawing takes a second."""
        with suppress(OSError):
            kept = (folder / f"{self.name}.svg").read_bytes()
            if self._mark and kept.endswith(self._mark):
                vars(self)["data"] = kept.removesuffix(self._mark)

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.data).decode()}"


def pictures(section: Section, name: str, title: str) -> Iterator[Picture]:
    """Yield the curves of a table under each protocol, and the confusion matrices of its full-length rows.

    File names begin with `name`, captions with `title`.
    """
    for protocol in PROTOCOLS:
        runs = {entry.row.label: [run for run in entry.runs if run.protocol == protocol] for entry in section.entries}
        yield from curves(runs, f"{name}-{protocol}-curves", title, protocol, section.table.name)
    tested = {
        f"{entry.row.label}\nseed {run.seed}, protocol={run.protocol}, {run.result['test/acc']:.2%}": run.result
        for entry in section.entries
        for run in [run for protocol in PROTOCOLS for run in entry.finished(protocol)][:1]
    }
    if tested and section.is_full:
        words = f"{title}: confusion matrices of the chosen epoch, percent of the true class"
        counts = {label: np.array(result["confusion_matrix"]) for label, result in tested.items()}
        classes = next(iter(tested.values()))["classes"]
        yield Picture(f"{name}-confusion", words, partial(confusion_matrices, counts, classes))


def glance(sections: Sequence[Section]) -> Iterator[Picture]:
    """Yield a figure of measured minus published accuracy of full-length rows; nothing without a run to compare."""
    judged = [
        Judged(
            f"{section.table.title}: {entry.row.label}",
            entry.row.accuracy,
            float(entry.values("test/acc", "report").mean()),
            entry.noise,
            entry.verdict,
            len(entry.values("test/acc", "report")),
        )
        for section in sections
        for entry in section.entries
        if entry.row.accuracy is not None and entry.noise is not None
    ]
    if judged:
        seeds = _seeds([row.num_seeds for row in judged])
        words = f"Measured minus published accuracy with its 95 % interval, {seeds}; a diamond if zero is outside it"
        yield Picture("agreement", words, partial(agreement, judged))


def compute(sections: Sequence[Section], bases: Sequence[Base]) -> Iterator[Picture]:
    """Yield a figure of accuracy against training compute, of full-length rows and other experiments, if both exist."""
    of_rows = [
        (pflop(run), run.result["test/acc"])
        for section in sections
        if section.is_full
        for entry in section.entries
        for run in entry.finished("report")
        if run.result.get("flops_per_image")  # missing in runs of version 0.1
    ]
    groups = {"rows of the report, best epoch on the test set": list(dict.fromkeys(of_rows))}
    for base in bases:
        for metric, more in (("test/acc_final", ""), ("test/acc_tta_final", ", test-time augmentation")):
            measured = [(pflop(run), run.result[metric]) for run in base.own if metric in run.result]
            if measured:
                groups[f"{base.name}, last epoch{more} (n = {len(measured)})"] = measured
    if of_rows and len(groups) > 1:
        yield Picture("compute", "Test accuracy against training compute", partial(accuracy_by_compute, groups))


def curves(
    rows: Mapping[str, Sequence[Record]], name: str, title: str, protocol: str, group: str | None = None
) -> Iterator[Picture]:
    """Yield a figure of training losses and accuracies under one protocol, by row label; nothing without runs.

    If rows differ in their loss, the training accuracy replaces it. Colours follow the rows' options in `group`. The
    caption begins with `title`.
    """
    shades = colours_by_name(rows, group)
    known = {label: [run.metrics for run in runs if run.metrics is not None] for label, runs in rows.items()}
    with_curves = {label: metrics for label, metrics in known.items() if metrics}
    if with_curves:
        comparable = one_loss([run for label in with_curves for run in rows[label]])
        label = val_label(protocol == "holdout")
        quantities = f"training {'loss' if comparable else 'accuracy'} and {label} accuracy"
        counts = list(map(len, with_curves.values()))
        spread = "; bands: range over seeds" if max(counts) > 1 else ""
        words = f"{title}: {quantities}, protocol={protocol}, {_seeds(counts)}{spread}"
        draw = partial(compared_curves, with_curves, shades, "", label, has_one_loss=comparable)
        yield Picture(name, words, draw)


def _seeds(counts: Sequence[int]) -> str:
    """Describe the number of seeds per row, for a caption."""
    fewest, most = min(counts), max(counts)
    return (
        "one seed each" if most == 1 else f"{fewest} seeds each" if fewest == most else f"{fewest} to {most} seeds each"
    )


class Judged(NamedTuple):
    """A row with runs: its mean over seeds, and the `noise` interval of its published accuracy, from 0 to 1."""

    label: str
    published: float
    measured: float
    noise: tuple[float, float]
    verdict: str
    num_seeds: int = 1


def agreement(rows: Sequence[Judged]) -> Figure:
    """Draw measured minus published accuracy with the interval behind each verdict, first row on top."""
    figure = Figure(figsize=(9, 1.1 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        middle, low, high = (100 * (value - row.published) for value in (row.measured, *row.noise))
        is_within = row.verdict == "within noise"
        colour, marker = (TRAIN_COLOUR, "o") if is_within else (VAL_COLOUR, "D")
        axes.plot([low, high], [place, place], "-", lw=2, color=colour)
        axes.plot([middle], [place], marker, ms=6, color=colour)
        text = f"{middle:+.2f}"
        axes.annotate(text, (high, place), (6, 0), textcoords="offset points", va="center", fontsize=8, bbox=_PLAIN)
    axes.axvline(0, color="0.4", lw=1)
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=1.5)
    furthest = max(abs(100 * (bound - row.published)) for row in rows for bound in row.noise)
    axes.set_xlim(-1.6 * max(furthest, 2), 1.6 * max(furthest, 2))
    ticks = [tick for tick in _TICKS if abs(tick) <= 1.6 * max(furthest, 2)]
    axes.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"measured minus published accuracy, percentage points; linear within ±{_LINEAR:g}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    return figure


def accuracy_by_compute(groups: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Draw accuracy (from 0 to 1) against training compute in PFLOP of each run, with a colour and marker per group.

    A run more than `_SPAN` points below the best one is drawn at the lower edge, with its accuracy in numbers.
    """
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    lowest = 100 * max(accuracy for runs in groups.values() for _, accuracy in runs) - _SPAN
    for (label, runs), colour, marker in zip(
        groups.items(), colours(len(groups)), itertools.cycle("oD^sv"), strict=False
    ):
        points = [(amount, 100 * accuracy) for amount, accuracy in runs]
        heights = [max(accuracy, lowest) for _, accuracy in points]
        axes.plot([amount for amount, _ in points], heights, marker, ms=5, color=colour, label=label, clip_on=False)
        low: dict[float, list[str]] = {}  # one text for runs of equal compute, which would cover each other
        for amount, accuracy in sorted(points, reverse=True):
            if accuracy < lowest:
                low.setdefault(amount, []).append(f"{accuracy:.1f} %")
        for amount, texts in low.items():
            axes.annotate(", ".join(texts), (amount, lowest), (6, 4), textcoords="offset points", fontsize=8)
    axes.set_ylim(bottom=lowest)
    axes.set_xscale("log")
    axes.set_xticks(_PFLOPS, [f"{amount:g}" for amount in _PFLOPS])
    axes.minorticks_off()
    amounts = [amount for runs in groups.values() for amount, _ in runs]
    axes.set_xlim(min(amounts) / 1.3, max(amounts) * 1.3)
    axes.set_xlabel("training compute, PFLOP (three forward passes per step)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=9, loc="outside lower center", frameon=False)
    return figure
