"""Runs as the report reads them, from folders and from the archive."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cifar_lab.runs import Archive, ArchivedRun, Run, UnreadableError
from cifar_lab.table.records import Record, collect

# What the status of a run without a result says of it.
_TOLD_OF_DIVERGED = ("epoch", "epochs", "error", "precision", "memory_format", "git_revision", "hardware")


@dataclass(frozen=True)
class Measured:
    """A run, of a folder or of the archive.

    Attributes:
        record: What is known of it.
        metrics: A row per epoch; None where there are none that can be shown.
        source: Where it is from.
        archive: Where its arrays are kept, if it is of no folder.
    """

    record: Record
    metrics: pd.DataFrame | None
    source: str
    archive: Archive | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str | None, str | None]:
        """What one run of those whose numbers must be equal is of: a composition, as a study's or as no study's."""
        return self.record.identity, self.record.options.get("study")

    @property
    def protocol(self) -> str:
        """What chooses its epoch."""
        return str(self.record.settings.get("protocol.name", ""))

    @property
    def is_finished(self) -> bool:
        """Whether it has a result."""
        return self.record.state == "finished"

    @property
    def has_ended(self) -> bool:
        """Whether it is known what becomes of it: it has a result, or has diverged."""
        return self.record.state in ("finished", "diverged")

    def steps(self) -> dict[str, np.ndarray] | None:
        """One array `(steps,)` per quantity, of the archive the loss alone; None where there are none to be read."""
        return self._arrays(Run.steps, Archive.steps)

    def probes(self) -> dict[str, np.ndarray] | None:
        """What `probes.npz` holds; None where there is none to be read."""
        return self._arrays(Run.probes, Archive.probes)

    def _arrays(
        self,
        of_run: Callable[[Run], dict[str, np.ndarray]],
        of_archive: Callable[[Archive, str], dict[str, np.ndarray]],
    ) -> dict[str, np.ndarray] | None:
        try:
            if self.record.run is not None:
                return of_run(self.record.run)
            return None if self.archive is None else of_archive(self.archive, str(self.record.identity))
        except (FileNotFoundError, UnreadableError):
            return None


def gather(runs: Iterable[Run], archive: Archive | None = None) -> list[Measured]:
    """Read runs, and those of the archive that are in no folder, or have not finished there.

    Args:
        runs: Folders.
        archive: Finished runs kept elsewhere.

    Raises:
        UnreadableError: The archive is damaged; a damaged folder is a run in the state `unreadable`.
    """
    measured = [
        Measured(record, record.metrics(), str(record.run and record.run.folder)) for record in collect([(runs, [])])
    ]
    if archive is None:
        return measured
    there = {run.key: run.record.state for run in measured if run.has_ended}
    kept_runs = [_kept(kept, archive) for kept in archive.read()]
    added = [run for run in kept_runs if there.get(run.key) not in ("finished", run.record.state)]
    finished = {run.key for run in added if run.is_finished}
    return [*(run for run in measured if run.key not in finished), *added]


def _kept(kept: ArchivedRun, archive: Archive) -> Measured:
    try:
        metrics = archive.metrics(kept.result["fingerprint"])
    except FileNotFoundError:
        metrics = None
    return Measured(_record(kept), metrics, str(archive.results_file), archive)


def archived(run: Measured) -> ArchivedRun:
    """A run that has ended as the archive keeps it."""
    record = run.record
    of_record = {"protocol": run.protocol, "options": record.options, "overrides": list(record.overrides)}
    result = {**of_record, **record.result}
    if not run.is_finished:
        assert record.run is not None
        result = {
            "fingerprint": record.identity,
            "name": record.run.config()["name"],
            **of_record,
            **{name: record.status[name] for name in _TOLD_OF_DIVERGED if name in record.status},
            "status": record.state,
        }
    return ArchivedRun(result, {**record.settings, "seed": record.seed}, record.interpolations)


def _record(kept: ArchivedRun) -> Record:
    settings: dict[str, Any] = dict(kept.settings)
    seed = int(settings.pop("seed"))
    return Record(
        state=kept.state,
        options=kept.result["options"],
        settings=settings,
        interpolations=kept.interpolations,
        overrides=tuple(kept.result["overrides"]),
        identity=kept.result["fingerprint"],
        seed=seed,
        status={name: kept.result[name] for name in ("epoch", "epochs", "error") if name in kept.result},
        result=kept.result if kept.state == "finished" else {},
    )
