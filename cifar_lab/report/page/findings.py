"""Published numbers that the printed settings did not give, and the hypotheses that were run about them."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from cifar_lab.report.page.parts import judged, state
from cifar_lab.report.published import Hypothesis
from cifar_lab.report.reproduction import Entry, Reproduction
from cifar_lab.table import text


@dataclass(frozen=True)
class Finding:
    """A published number that the printed settings did not give.

    Attributes:
        title: The row.
        words: Published, measured, and where the published number would have to lie.
        hypotheses: A line for each that is told in `conf/published.yaml`; None without one.
    """

    title: str
    words: str
    hypotheses: pd.DataFrame | None


def findings(reproduction: Reproduction) -> Iterator[Finding]:
    """Every finding, in the order of the tables, and every row about which a hypothesis was run."""
    told = set()
    for entry in reproduction.entries:
        is_tested = any(tested.runs for tested in entry.hypotheses)
        if (entry.is_finding or is_tested) and entry.row.name not in told:
            told.add(entry.row.name)
            pairs = zip(entry.row.hypotheses, entry.hypotheses, strict=True)
            tested = [_tested(hypothesis, runs) for hypothesis, runs in pairs]
            title = f"{entry.row.label} ({entry.row.name})"
            yield Finding(title, _words(entry), pd.DataFrame(tested) if tested else None)


def _tested(hypothesis: Hypothesis, runs: Entry) -> dict[str, str]:
    command = [*hypothesis.row.command(), f"name=report-hypothesis-{hypothesis.name}"]
    cells = {
        "hypothesis": hypothesis.row.label,
        "why": hypothesis.words,
        "best epoch": text.over_seeds(runs.values("test/acc", "report")),
        "last epoch": text.over_seeds(runs.values("test/acc_final", "report")),
        "measured, against published": judged(runs),
        "run by": f"`{shlex.join(['python', '-m', 'cifar_lab.train', *command])}`",
    }
    told = state(runs)
    return {**cells, "state": told} if told else cells


def _words(entry: Entry) -> str:
    published = f"Published: {_percent(entry.row.accuracy or 0)}"
    if entry.verdict == "diverged":
        return f"{published}. With the printed settings every run that has ended under `protocol=report` diverged."
    if entry.noise is None:
        return f"{published}. The printed settings have not been run under `protocol=report`."
    low, high = entry.noise
    where = "outside" if entry.is_finding else "inside"
    best, last = (text.over_seeds(entry.values(name, "report")) for name in ("test/acc", "test/acc_final"))
    return (
        f"{published}. The printed settings give {best} in the best epoch, {last} in the last, `protocol=report`. "
        f"The published number is {where} {_percent(low)} to {_percent(high)} ({entry.basis})."
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
