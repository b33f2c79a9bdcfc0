"""The record of a run in a folder or in the archive, or of a job without a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.fingerprints import digest, leaves, settings, unhashed
from cifar_lab.runs.labels import holds_out, protocol_name
from cifar_lab.runs.reading import UnreadableError, read_arrays, read_metrics, reason_of
from cifar_lab.runs.run_files import RunFiles
from cifar_lab.runs.sweep import job_key

if TYPE_CHECKING:
    import pandas as pd


class Numbers(NamedTuple):
    """Paths of the files with a run's numbers, which need not exist."""

    metrics: Path
    steps: Path
    probes: Path
    dead_units: Path


@dataclass(frozen=True, eq=False)
class Record:
    """A run, or a job without a run; curves, losses and probes are read on demand."""

    state: str  # finished, failed, diverged, interrupted, pruned, running, dead, unreadable or missing
    name: str = ""  # the sweep's name
    options: Mapping[str, str | None] = field(default_factory=dict)  # the chosen option of each group, if known
    settings: Mapping[str, Any] = field(
        default_factory=dict
    )  # settings that can change numbers, without the seed; dotted keys
    interpolations: Mapping[str, str] = field(default_factory=dict)  # for settings that depend on others; dotted keys
    overrides: tuple[str, ...] = ()  # the command line
    identity: str | None = None  # the fingerprint, equal where numbers must be equal; the folder of an unreadable run
    seed: int | None = None
    status: Mapping[str, Any] = field(
        default_factory=dict
    )  # `status.json`; in the archive, part of it for diverged runs
    result: Mapping[str, Any] = field(default_factory=dict)  # `result.json`; empty if the run has not finished
    folder: Path | None = None  # None for a missing run and for one from the archive
    numbers: Numbers | None = None  # None for a missing run

    @property
    def is_missing(self) -> bool:
        """Whether it is a job without a run."""
        return self.state == "missing"

    @property
    def is_finished(self) -> bool:
        """Whether it has a result."""
        return self.state == "finished"

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train, because it has finished or diverged."""
        return self.state in ("finished", "diverged")

    @property
    def protocol(self) -> str:
        """The name of the protocol, derived from the held-out images; empty if unknown."""
        return protocol_name(self.settings)

    @property
    def holds_out(self) -> bool:
        """Whether `val/*` are of held-out training images instead of the test set."""
        return holds_out(self.settings)

    @property
    def key(self) -> tuple[str | None, str | None]:
        """A key that runs with the same fingerprint and study share; only one of them counts."""
        return self.identity, self.options.get("study")

    @cached_property
    def job(self) -> frozenset[str]:
        """The identity of a job in a sweep."""
        return job_key(self.overrides)

    @property
    def job_without_seed(self) -> frozenset[str]:
        """The part of the command line that the jobs of one composition share."""
        return frozenset(line for line in self.job if not line.startswith("seed="))

    @property
    def description(self) -> str:
        """The state with its reason, if known, in one line."""
        if self.state in ("running", "pruned"):
            return f"{self.state}, epoch {self.status.get('epoch', 0)} of {self.status.get('epochs', '?')}"
        reason = " ".join(str(self.status.get("error", "")).split())
        return f"{self.state}: {reason}" if reason else self.state

    @cached_property
    def metrics(self) -> "pd.DataFrame | None":
        """One row per epoch; None if there is none, or the run has diverged, since its last numbers are not finite.

        Raises:
            UnreadableError: The archive is damaged.
        """
        if self.numbers is None or self.state in ("diverged", "unreadable"):
            return None
        try:
            metrics = read_metrics(self.numbers.metrics)
        except (FileNotFoundError, UnreadableError) as error:
            if self.folder is None and isinstance(error, UnreadableError):
                raise
            return None
        return metrics if len(metrics) else None

    @cached_property
    def steps(self) -> dict[str, np.ndarray] | None:
        """One array `(steps,)` per quantity, in the archive only the loss; None if the file cannot be read."""
        return _arrays(self.numbers and self.numbers.steps, "loss")

    @cached_property
    def probes(self) -> dict[str, np.ndarray] | None:
        """The arrays of `probes.npz`; None if the file cannot be read."""
        return _arrays(self.numbers and self.numbers.probes, "step", "loss", "seconds")

    @cached_property
    def dead_units(self) -> Mapping[str, Any] | None:
        """The run's row of `dead_units.csv` (`docs/after_training.md`); None if its current weights have no count."""
        import pandas as pd

        if self.numbers is None:
            return None
        try:
            rows = pd.read_csv(self.numbers.dead_units, dtype={"fingerprint": str})  # `12e4` is not a number
            # The first row is the run's own; later rows are of networks that it was compared with.
            own = {str(name): value for name, value in rows.iloc[0].items()}
        except (OSError, ValueError, IndexError):  # missing or damaged
            return None
        return own if own.get("fingerprint") == self.identity else None

    @cached_property
    def composition(self) -> str:
        """Settings, experiment and study as a string, which is the same for all seeds."""
        own = {key: value for key, value in self.settings.items() if "${seed}" not in self.sources.get(key, "")}
        return json.dumps([self.options.get("experiment"), self.options.get("study"), own], sort_keys=True)

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """The interpolations of settings that depend on others, by the setting's dotted key."""
        return _sources(tuple(self.interpolations.items()), tuple(self.settings))


def read_run(run: RunFiles) -> Record:
    """Read a run's record, except its numbers; a damaged run has the state `unreadable`."""
    try:
        composition = run.composition()
        kept = settings(composition["config"])
        identity, seed = digest(kept), int(kept.pop("seed"))
        record = _read(
            run,
            name=str(composition["config"].get("name", "")),
            options=composition["options"],
            settings={**dict(leaves(kept)), **unhashed(composition["config"])},
            interpolations=composition["interpolations"],
            overrides=tuple(composition["overrides"]),
            identity=identity,
            seed=seed,
        )
        result = record.result
        columns = (result.get("options", {}).get("data"), result.get("hardware", {}).get("device_name"))
        if record.is_finished and None in (*columns, result.get("precision"), result.get("test_size")):
            lacking = "the data, the hardware, the precision or the number of test images"
            raise UsageError(f"{run.result_file} lacks {lacking}")
        return record
    except (OSError, ValueError, KeyError) as error:
        return _unreadable(run, error)


def read_state(run: RunFiles) -> Record:
    """Read only the state, status and result of a run, which is faster than `read_run`."""
    try:
        return _read(run)
    except (OSError, ValueError) as error:
        return _unreadable(run, error)


def _read(run: RunFiles, **known: Any) -> Record:
    status = run.status()
    state = run.state(status)
    result = run.result() if state == "finished" else {}
    return Record(state=state, status=status, result=result, folder=run.folder, numbers=_numbers(run), **known)


def _unreadable(run: RunFiles, error: Exception) -> Record:
    status = {**run.status(), "error": reason_of(error)}
    return Record("unreadable", status=status, identity=str(run.folder), folder=run.folder, numbers=_numbers(run))


def _numbers(run: RunFiles) -> Numbers:
    return Numbers(run.metrics_file, run.steps_file, run.probes_file, run.folder / "explanation" / "dead_units.csv")


def _arrays(path: Path | None, *names: str) -> dict[str, np.ndarray] | None:
    """Read the arrays of a file; return None if it cannot be read, or lacks one of `names`."""
    try:
        arrays = {} if path is None else read_arrays(path)
    except (FileNotFoundError, UnreadableError):
        return None
    return arrays if arrays.keys() >= set(names) else None


@lru_cache
def _sources(interpolations: tuple[tuple[str, str], ...], keys: tuple[str, ...]) -> dict[str, str]:
    """Return `Record.sources`; cached, because it is the same for thousands of runs."""
    inside = [(key, source) for key in keys for prefix, source in interpolations if f"{key}.".startswith(f"{prefix}.")]
    return dict(reversed(inside))  # the first of several counts
