"""Runs set beside the published rows that they reproduce."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cifar_lab.analysis.published import LENGTH_KEYS, Row, Scale, Table
from cifar_lab.analysis.records import Record, collect
from cifar_lab.analysis.significance import SEEDS_FOR_INTERVALS, noise_interval
from cifar_lab.runs import Archive, ArchivedRun, Run, UnreadableError

PROTOCOLS = ("report", "holdout")
# What a run of a row may have otherwise than the row: its seed, and its protocol, which the tables tell apart.
_OF_A_RUN = ("seed", "data.seed", "data.val_fraction", "protocol.name", "protocol.val_fraction")
_PART = "data.train_size"
_FULL = "full length"
_LENGTHS = {
    Scale.FULL: _FULL,
    Scale.QUICK: "a tenth of the epochs",
    Scale.SMOKE: "one epoch of 1,000 images",
}


@dataclass(frozen=True)
class Measured:
    """A run, of a folder or of the archive.

    Attributes:
        record: What is known of it.
        metrics: A row per epoch; None where there are none that can be shown.
        source: Where it is from.
    """

    record: Record
    metrics: pd.DataFrame | None
    source: str

    @property
    def protocol(self) -> str:
        """What chooses its epoch."""
        return str(self.record.settings.get("protocol.name", ""))

    @property
    def is_finished(self) -> bool:
        """Whether it has a result."""
        return self.record.state == "finished"


@dataclass(frozen=True)
class Entry:
    """A row of a published table, with its runs of one length.

    Attributes:
        row: What was published.
        runs: All of them, finished or not, by seed.
    """

    row: Row
    runs: tuple[Measured, ...] = ()

    def finished(self, protocol: str) -> list[Measured]:
        """The runs with a result under a protocol."""
        return [run for run in self.runs if run.is_finished and run.protocol == protocol]

    def values(self, name: str, protocol: str) -> np.ndarray:
        """A number of each finished run under a protocol, `(n,)`."""
        found = [run.record.result.get(name) for run in self.finished(protocol)]
        return np.array([value for value in found if value is not None], dtype=float)

    def mean(self, name: str) -> float | None:
        """The mean of a number over all finished runs; None without one."""
        found = np.concatenate([self.values(name, protocol) for protocol in PROTOCOLS])
        return float(found.mean()) if len(found) else None

    @property
    def unfinished(self) -> list[Measured]:
        """The runs without a result."""
        return [run for run in self.runs if not run.is_finished]

    @cached_property
    def noise(self) -> tuple[float, float] | None:
        """Where the published accuracy lies if noise explains it, from the runs of the report's protocol."""
        values = self.values("test/acc", "report")
        if not len(values):
            return None
        return noise_interval(values, min(run.record.result["test_size"] for run in self.finished("report")))

    @property
    def verdict(self) -> str:
        """What was measured against the published accuracy.

        One of within noise, lower, higher, diverged (no run of the report's protocol has finished), not run, and none
        published.
        """
        if self.row.accuracy is None:
            return "none published"
        if self.noise is None:
            diverged = any(run.record.state == "diverged" and run.protocol == "report" for run in self.runs)
            return "diverged" if diverged else "not run"
        low, high = self.noise
        if low <= self.row.accuracy <= high:
            return "within noise"
        return "lower" if high < self.row.accuracy else "higher"

    @property
    def basis(self) -> str:
        """What the verdict rests on."""
        number = len(self.values("test/acc", "report"))
        if self.row.accuracy is None or not number:
            return ""
        if number < SEEDS_FOR_INTERVALS:
            return f"binomial interval alone, n = {number}"
        return f"95 % prediction interval, n = {number}"


@dataclass(frozen=True)
class Section:
    """A published table with the runs of one length.

    Attributes:
        table: What was published.
        length: How long its runs are beside the published ones.
        entries: One for each row.
    """

    table: Table
    length: str
    entries: tuple[Entry, ...]

    @property
    def is_full(self) -> bool:
        """Whether the runs are as long as the published ones, on all images."""
        return self.length == _FULL

    @property
    def has_runs(self) -> bool:
        """Whether there is a run of any row."""
        return any(entry.runs for entry in self.entries)


@dataclass(frozen=True)
class Reproduction:
    """The published report beside what was measured.

    Attributes:
        sections: The published tables with the full-length runs.
        shortened: Tables of shorter runs, each of one length.
        measured: All runs, those of no published row too.
    """

    sections: tuple[Section, ...]
    shortened: tuple[Section, ...] = ()
    measured: tuple[Measured, ...] = field(default=(), repr=False)

    def entry(self, experiment: str) -> Entry:
        """The full-length runs of the published row that is one experiment as it is.

        Raises:
            KeyError: No row is.
        """
        return {entry.row.name: entry for section in self.sections for entry in section.entries}[experiment]

    @property
    def entries(self) -> list[Entry]:
        """All full-length rows, each as often as it is in a table."""
        return [entry for section in self.sections for entry in section.entries]

    @property
    def runs(self) -> list[Measured]:
        """Every finished run of a published row, once."""
        sections = (*self.sections, *self.shortened)
        found = {run.record.identity: run for section in sections for entry in section.entries for run in entry.runs}
        return [run for run in found.values() if run.is_finished]


def gather(runs: Iterable[Run], archive: Archive | None = None) -> list[Measured]:
    """Read runs, and those of the archive that are in no folder.

    Args:
        runs: Folders.
        archive: Finished runs kept elsewhere.

    Raises:
        UnreadableError: The archive is damaged; a damaged folder is a run in the state `unreadable`.
    """
    measured = [
        Measured(record, None if record.run is None else _metrics(record), str(record.run and record.run.folder))
        for record in collect([(runs, [])])
    ]
    there = {run.record.identity for run in measured if run.is_finished}
    for kept in [] if archive is None else archive.read():
        fingerprint = kept.result["fingerprint"]
        if fingerprint not in there:
            assert archive is not None
            try:
                metrics = archive.metrics(fingerprint)
            except FileNotFoundError:
                metrics = None
            measured.append(Measured(_record(kept), metrics, str(archive.results_file)))
    return measured


def archived(run: Measured) -> ArchivedRun:
    """A finished run as the archive keeps it."""
    record = run.record
    return ArchivedRun(record.result, {**record.settings, "seed": record.seed}, record.interpolations)


def reproduce(tables: Sequence[Table], runs: Sequence[Measured]) -> Reproduction:
    """Set runs beside the rows whose settings they have; one run serves every row that it fits.

    Args:
        tables: The published ones.
        runs: Any.
    """
    lengths: dict[str, None] = {}
    found: dict[tuple[str, str, str], list[Measured]] = {}
    for run in runs:
        for table in tables:
            for row in table.rows:
                length = _length(row, run.record)
                if length is not None:
                    lengths[length] = None
                    found.setdefault((table.name, length, row.name), []).append(run)

    def section(table: Table, length: str) -> Section:
        entries = [
            Entry(row, tuple(sorted(found.get((table.name, length, row.name), ()), key=_by_seed))) for row in table.rows
        ]
        return Section(table, length, tuple(entries))

    sections = tuple(section(table, _FULL) for table in tables)
    shortened = [section(table, length) for length in lengths if length != _FULL for table in tables]
    return Reproduction(sections, tuple(one for one in shortened if one.has_runs), tuple(runs))


def _length(row: Row, record: Record) -> str | None:
    """How long a run is beside the published row; None if it is no run of that row."""
    own, theirs = dict(record.settings), row.settings
    differing = {key for key in own.keys() | theirs.keys() if key not in _OF_A_RUN and own.get(key) != theirs.get(key)}
    if differing - {*LENGTH_KEYS, _PART} or not own:
        return None
    if not differing:
        return _FULL
    part = own.get(_PART)
    if differing == {_PART}:
        return f"all epochs, {part:,.0f} training images"
    for scale in (Scale.QUICK, Scale.SMOKE):
        shortened = row.shortened(scale)
        if all(own.get(key) == value for key, value in shortened.items() if key != _PART):
            if scale is Scale.SMOKE and part == shortened[_PART]:
                return _LENGTHS[scale]
            if scale is Scale.QUICK:
                return _LENGTHS[scale] if part is None else f"{_LENGTHS[scale]}, {part:,.0f} training images"
    return "other lengths"


def _metrics(record: Record) -> pd.DataFrame | None:
    if record.run is None or record.state in ("diverged", "unreadable"):
        return None
    try:
        metrics = record.run.metrics()
    except (FileNotFoundError, UnreadableError):
        return None
    return metrics if len(metrics) else None


def _record(kept: ArchivedRun) -> Record:
    settings: dict[str, Any] = dict(kept.settings)
    seed = int(settings.pop("seed"))
    return Record(
        state="finished",
        options=kept.result["options"],
        settings=settings,
        interpolations=kept.interpolations,
        overrides=tuple(kept.result["overrides"]),
        identity=kept.result["fingerprint"],
        seed=seed,
        result=kept.result,
    )


def _by_seed(run: Measured) -> tuple[bool, int]:
    return run.record.seed is None, run.record.seed or 0
