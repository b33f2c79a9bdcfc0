"""The page's figures: curves and confusion matrices of a table's rows."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cifar_lab.analysis import figures
from cifar_lab.analysis.figures import Figure
from cifar_lab.analysis.measured import Measured
from cifar_lab.analysis.reproduction import PROTOCOLS, Section
from cifar_lab.analysis.run_report import val_label


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


def pictures(section: Section, name: str, title: str) -> Iterator[Picture]:
    """The curves of a table's runs under each protocol, and a confusion matrix for each row.

    Args:
        section: The table.
        name: What the names of the files begin with.
        title: What the words begin with.
    """
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
            yield Picture(f"{name}-{protocol}-curves", words, svg(figure))
    tested = {
        f"{entry.row.label}\n{_told(first)}": first.record.result
        for entry in section.entries
        for first in [run for protocol in PROTOCOLS for run in entry.finished(protocol)][:1]
    }
    if tested:
        words = f"{title}: confusion matrices of the chosen epoch, percent of the true class"
        counts = {label: np.array(result["confusion_matrix"]) for label, result in tested.items()}
        classes = next(iter(tested.values()))["classes"]
        yield Picture(f"{name}-confusion", words, svg(figures.confusion_matrices(counts, classes)))


def _told(run: Measured) -> str:
    return f"seed {run.record.seed}, protocol={run.protocol}, {run.record.result['test/acc']:.2%}"


def svg(figure: Figure) -> bytes:
    """A figure as the page holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return file.getvalue()
