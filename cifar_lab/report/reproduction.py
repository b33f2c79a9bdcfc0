"""Assignment of runs to the published rows that they reproduce."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cifar_lab.report.published import FULL, Row, Table, is_beginning, length_of, order
from cifar_lab.runs import Record
from cifar_lab.runs.labels import data_changes
from cifar_lab.statistics.significance import SEEDS_FOR_INTERVALS, noise_interval
from cifar_lab.table.comparison import values_of

PROTOCOLS = ("report", "holdout")
VERDICTS = ("within noise", "lower", "higher", "diverged", "none published", "not run")


@dataclass(frozen=True)
class Entry:
    """A published row with its runs of one length."""

    row: Row
    runs: tuple[Record, ...] = ()  # finished or not, by seed
    # at full length: hypotheses about the published number, each with its runs
    hypotheses: tuple["Entry", ...] = ()
    # at full length: runs of other lengths whose first epochs are the same
    beginnings: tuple[Record, ...] = ()

    def train_losses(self, epoch: int) -> np.ndarray:
        """Return the mean training loss of an epoch (from 1) of each seed that reached it under `protocol=report`."""
        longest_last = sorted(self.beginnings, key=lambda run: run.settings["epochs"])
        by_seed = {}
        for run in (*longest_last, *self.runs):
            if run.protocol == "report" and run.metrics is not None:
                for loss in run.metrics.loc[run.metrics["epoch"] == epoch, "train/loss"]:
                    by_seed[run.seed] = float(loss)
        return np.array(list(by_seed.values()))

    def finished(self, protocol: str) -> list[Record]:
        """Return the finished runs of a protocol."""
        return [run for run in self.runs if run.is_finished and run.protocol == protocol]

    def values(self, name: str, protocol: str) -> np.ndarray:
        """Return the value `name` of each finished run of a protocol, `(n,)`."""
        return values_of(self.finished(protocol), name)

    def mean(self, name: str) -> float | None:
        """Return the mean of the value `name` over all finished runs; None if there is none."""
        values = np.concatenate([self.values(name, protocol) for protocol in PROTOCOLS])
        return float(values.mean()) if len(values) else None

    @property
    def machines(self) -> list[str]:
        """Devices of the finished runs, without duplicates."""
        return list({run.result["hardware"]["device_name"]: None for run in self.runs if run.is_finished})

    @cached_property
    def noise(self) -> tuple[float, float] | None:
        """Interval of published accuracies that noise explains, from the runs under `protocol=report`."""
        values = self.values("test/acc", "report")
        if not len(values) or self.row.accuracy is None:
            return None
        size = min(run.result["test_size"] for run in self.finished("report"))
        return noise_interval(values, size, self.row.accuracy)

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`; `diverged` if under `protocol=report` no run has finished and one has diverged."""
        if self.row.accuracy is None:
            return "none published"
        if self.noise is None:
            diverged = any(run.state == "diverged" and run.protocol == "report" for run in self.runs)
            return "diverged" if diverged else "not run"
        low, high = self.noise
        if low <= self.row.accuracy <= high:
            return "within noise"
        return "lower" if high < self.row.accuracy else "higher"

    @property
    def is_finding(self) -> bool:
        """Whether the printed settings do not reproduce the published number."""
        return self.verdict in ("lower", "higher", "diverged")

    @property
    def basis(self) -> str:
        """Name of the interval behind the verdict; empty if there is none."""
        number = len(self.values("test/acc", "report"))
        if self.row.accuracy is None or not number:
            return ""
        interval = "two-sample binomial interval" if number < SEEDS_FOR_INTERVALS else "95 % prediction interval"
        return f"{interval}, n = {number}"


@dataclass(frozen=True)
class Section:
    """A published table at one length, with an entry for each row."""

    table: Table
    length: str
    entries: tuple[Entry, ...]

    @property
    def is_full(self) -> bool:
        """Whether the runs have the published length, on all images."""
        return self.length == FULL


@dataclass(frozen=True)
class Reproduction:
    """The published report with the measured runs."""

    sections: tuple[Section, ...]  # published tables with full-length runs
    shortened: tuple[Section, ...] = ()  # tables of shorter runs, one length each
    measured: tuple[Record, ...] = field(default=(), repr=False)  # all runs, including those of no published row

    def entry(self, experiment: str) -> Entry:
        """Return a published row's full-length entry by name; raise `KeyError` if there is none."""
        return {entry.row.name: entry for entry in self.entries}[experiment]

    @property
    def entries(self) -> list[Entry]:
        """All full-length entries; a row of several tables is repeated."""
        return [entry for section in self.sections for entry in section.entries]

    @property
    def verdicts(self) -> dict[str, list[Entry]]:
        """Full-length entries by verdict, without empty verdicts."""
        by_verdict = {verdict: [entry for entry in self.entries if entry.verdict == verdict] for verdict in VERDICTS}
        return {verdict: entries for verdict, entries in by_verdict.items() if entries}

    @property
    def by_chance(self) -> float:
        """Expected number of compared full-length rows outside their 95 % interval if all true accuracies are equal."""
        return 0.05 * sum(entry.noise is not None for entry in self.entries)

    @property
    def runs(self) -> list[Record]:
        """Every ended run of a published row or of a hypothesis, without duplicates."""
        entries = [entry for section in (*self.sections, *self.shortened) for entry in section.entries]
        entries += [tested for entry in entries for tested in entry.hypotheses]
        by_identity = {run.identity: run for entry in entries for run in entry.runs}
        return [run for run in by_identity.values() if run.has_ended]

    @property
    def of_studies(self) -> list[Record]:
        """Every run of a study on CIFAR-10, except those of `of_bases`."""
        return [run for run in self.measured if run.options.get("study") and _is_real(run) and not _is_fast(run)]

    @property
    def of_bases(self) -> list[Record]:
        """Every run of a `fast_*` experiment on CIFAR-10, unchanged or in a study."""
        return [run for run in self.measured if _is_real(run) and _is_fast(run)]

    @property
    def unreadable(self) -> list[Record]:
        """Damaged runs, which cannot be read."""
        return [run for run in self.measured if run.state == "unreadable"]


def _is_real(run: Record) -> bool:
    return run.options.get("data") == "cifar10" and not data_changes(run.settings)


def _is_fast(run: Record) -> bool:
    return str(run.options.get("experiment")).startswith("fast_")


def reproduce(tables: Sequence[Table], runs: Sequence[Record]) -> Reproduction:
    """Assign runs to the rows whose settings they have; a run counts for every row that it matches.

    If several runs have the same fingerprint, one counts, a finished one if possible.
    """
    rows = [(table, row) for table in tables for row in table.rows]
    tested = {one.name: _by_length(one.row, runs) for _, row in rows for one in row.hypotheses}
    entries = {
        (table.name, row.name): _by_length(row, runs, tuple(tested[one.name][FULL] for one in row.hypotheses))
        for table, row in rows
    }

    def section(table: Table, length: str) -> Section:
        of_rows = []
        for row in table.rows:
            of_rows.append(entries[table.name, row.name].get(length, Entry(row)))
            if length != FULL:  # full-length hypotheses are shown with the row that they explain
                shorter = [tested[one.name][length] for one in row.hypotheses if length in tested[one.name]]
                of_rows += [
                    replace(one, row=replace(one.row, label=f"{row.label}: {one.row.label}")) for one in shorter
                ]
        return Section(table, length, tuple(of_rows))

    lengths = {length for by_length in (*entries.values(), *tested.values()) for length in by_length}
    shortened = [section(table, length) for length in sorted(lengths - {FULL}, key=order) for table in tables]
    return Reproduction(
        tuple(section(table, FULL) for table in tables),
        tuple(one for one in shortened if any(entry.runs for entry in one.entries)),
        tuple(runs),
    )


def _by_length(row: Row, runs: Sequence[Record], hypotheses: tuple[Entry, ...] = ()) -> dict[str, Entry]:
    """Return the row's entries by length; full length is always included."""
    by_length: dict[str, dict[object, Record]] = {}
    for run in runs:
        length = length_of(row, run.settings, run.seed)
        if length is not None:
            known = by_length.setdefault(length, {})
            if run.identity not in known or (run.is_finished and not known[run.identity].is_finished):
                known[run.identity] = run
    beginnings = [run for of in by_length.values() for run in of.values() if is_beginning(row, run.settings)]
    runs_of = {
        length: tuple(sorted(own.values(), key=lambda run: (run.seed is None, run.seed or 0)))
        for length, own in by_length.items()
    }
    whole = Entry(row, runs_of.pop(FULL, ()), hypotheses, tuple(beginnings))
    return {**{length: Entry(row, own) for length, own in runs_of.items()}, FULL: whole}
