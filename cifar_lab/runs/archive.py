"""Runs kept small once they have ended: a line each in `results.csv`; curves, losses, probes in files of their own."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_lab.runs.files import replacing
from cifar_lab.runs.plain import check_kinds, from_json
from cifar_lab.runs.reading import RESULT_KINDS, UnreadableError, read_arrays, read_metrics

if TYPE_CHECKING:
    import pandas as pd

_WORDS = (
    "fingerprint",
    "name",
    "status",
    "error",
    "protocol",
    "precision",
    "memory_format",
    "optimizer_implementation",
    "git_revision",
)
_FIRST = ("fingerprint", "name", "seed", "protocol", "epochs", "train_size", "test/acc", "test/acc_final")
_LIMIT = 2**24  # characters of a cell; what keeps csv from reading a hostile one whole


@dataclass(frozen=True)
class ArchivedRun:
    """A run that has finished, or diverged, as the archive has it.

    Attributes:
        result: As `result.json` has it; of one that has diverged what it is called, and `epoch` of `epochs`, how far it
            came of what was planned.
        settings: What can change its numbers, by dotted key, with the seed.
        interpolations: What stands for values that follow others, by dotted key.
    """

    result: Mapping[str, Any]
    settings: Mapping[str, Any]
    interpolations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str | None]:
        """Its fingerprint, and its study, of which the base composition of several may be one."""
        return str(self.result["fingerprint"]), self.result["options"].get("study")

    @property
    def state(self) -> str:
        """What became of it: finished or diverged."""
        return str(self.result.get("status", "finished"))


class Archive:
    """A folder with the results that count, small enough to be kept under version control.

    Args:
        folder: It need not exist.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.results_file = self.folder / "results.csv"
        self.curves_folder = self.folder / "curves"
        self.steps_folder = self.folder / "steps"
        self.probes_folder = self.folder / "probes"
        self.dead_units_folder = self.folder / "dead_units"
        self.figures_folder = self.folder / "figures"

    def read(self) -> list[ArchivedRun]:
        """Every run, in the file's order; none where there is no file.

        Raises:
            UnreadableError: The file is damaged.
        """
        try:
            with self.results_file.open(newline="") as file:
                csv.field_size_limit(_LIMIT)
                reader = csv.DictReader(file)
                if "fingerprint" not in (reader.fieldnames or ()):
                    raise ValueError("it has no column fingerprint")
                return [_parsed(line) for line in reader]
        except FileNotFoundError:
            return []
        except (csv.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableError(f"{self.results_file} cannot be read: {error!r}") from None

    def metrics(self, fingerprint: str) -> "pd.DataFrame":
        """The curves of a run, a row per epoch.

        Raises:
            FileNotFoundError: There are none.
            UnreadableError: They are damaged.
        """
        return read_metrics(self._curves_file(fingerprint))

    def steps(self, fingerprint: str) -> dict[str, np.ndarray]:
        """The loss of every step of a run, `(steps,)`; raises as `metrics` does."""
        return read_arrays(self.steps_folder / f"{fingerprint}.npz")

    def probes(self, fingerprint: str) -> dict[str, np.ndarray]:
        """The probes of a run, an array per quantity; raises as `metrics` does."""
        return read_arrays(self.probes_folder / f"{fingerprint}.npz")

    def add_arrays(
        self, fingerprint: str, steps: Mapping[str, np.ndarray] | None, probes: Mapping[str, np.ndarray] | None
    ) -> None:
        """Keep of a run what its place in the loss landscape is told from, as far as it is not there already.

        Every step's loss, and all of the probes, in single precision and compressed.

        Args:
            fingerprint: Of a run that `add` has kept.
            steps: An array `(steps,)` per quantity; None if there are none.
            probes: An array per quantity; None if there are none.

        Raises:
            OSError: The folder cannot be written.
        """
        losses = None if steps is None else {"loss": steps["loss"]}
        for folder, arrays in ((self.steps_folder, losses), (self.probes_folder, probes)):
            path = folder / f"{fingerprint}.npz"
            if arrays is not None and not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                with replacing(path, "wb") as file:
                    small = {name: _single(values) for name, values in arrays.items()}
                    np.savez_compressed(file, **small)  # type: ignore[arg-type]

    def add_dead_units(self, fingerprint: str, counted: Mapping[str, Any]) -> None:
        """Keep what `explain` has counted of a run that `add` has kept, unless it is there; raises as `add_arrays`."""
        path = self.dead_units_file(fingerprint)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                writer = csv.DictWriter(file, list(counted), lineterminator="\n")
                writer.writeheader()
                writer.writerow(counted)

    def dead_units_file(self, fingerprint: str) -> Path:
        """Where a run's dead units are, if somebody has counted them."""
        return self.dead_units_folder / f"{fingerprint}.csv"

    def add(self, runs: Iterable["tuple[ArchivedRun, pd.DataFrame | None]"]) -> None:
        """Keep runs with their metrics; one that is there already, by its fingerprint and study, stays as it is.

        Of a run that had diverged before it is the one that has finished since that is kept.

        Raises:
            OSError: The folder cannot be written.
            UnreadableError: What is there is damaged.
            ValueError: A run lacks what could be read again.
        """
        kept = self.read()
        known = {run.key: place for place, run in enumerate(kept)}
        self.curves_folder.mkdir(parents=True, exist_ok=True)
        for run, metrics in runs:
            fingerprint = run.result["fingerprint"]
            if run.key not in known:
                known[run.key] = len(kept)
                kept.append(_readable(run))
            elif (kept[known[run.key]].state, run.state) == ("diverged", "finished"):
                kept[known[run.key]] = _readable(run)
            else:
                continue
            if metrics is not None:
                with replacing(self._curves_file(fingerprint)) as file:
                    metrics.to_csv(file, index=False, lineterminator="\n")
        names = dict.fromkeys([*_FIRST, *(name for run in kept for name in run.result)])
        with replacing(self.results_file) as file:
            # All quoted: a carriage return in a word would end the line.
            columns = [*names, "settings", "interpolations"]
            writer = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(map(_line, kept))

    def _curves_file(self, fingerprint: str) -> Path:
        return self.curves_folder / f"{fingerprint}.csv"


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what single precision cannot hold is infinite
        return values.astype(np.float32) if values.dtype.kind == "f" else values


def _line(run: ArchivedRun) -> dict[str, str]:
    own = {**run.result, "settings": run.settings, "interpolations": run.interpolations}
    return {name: (value or "") if name in _WORDS else json.dumps(value) for name, value in own.items()}


def _readable(run: ArchivedRun) -> ArchivedRun:
    """A run as it will be read again; what cannot be would make the whole file unreadable."""
    try:
        return _parsed(_line(run))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        name = run.result.get("name", "a run")
        raise ValueError(f"{name}, seed {run.settings.get('seed')}, cannot be kept: {error!r}") from None


def _parsed(line: Mapping[str, str]) -> ArchivedRun:
    told: dict[str, Any] = {
        name: cell if name in _WORDS else from_json(cell) for name, cell in line.items() if cell != ""
    }
    settings, interpolations = told.pop("settings"), told.pop("interpolations")
    check_kinds(told, RESULT_KINDS)
    if lacking := {"options", "overrides", "protocol"} - told.keys() | {"seed"} - settings.keys():
        raise ValueError(f"a run lacks {', '.join(sorted(lacking))}")
    if not told["fingerprint"].isalnum():
        raise ValueError(f"the fingerprint {told['fingerprint']!r} is none")
    return ArchivedRun(told, dict(settings), dict(interpolations))
