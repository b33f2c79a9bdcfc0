"""A small archive of ended runs: one line each in `results.csv`; curves, losses and probes in separate files."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.files import replacing
from cifar_lab.runs.reading import RESULT_KINDS, UnreadableError, check_kinds, from_json
from cifar_lab.runs.record import Numbers, Record

_HOW = ("precision", "memory_format", "git_revision")
_WORDS = ("fingerprint", "name", "status", "error", "protocol", "optimizer_implementation", *_HOW)
_FIRST = ("fingerprint", "name", "seed", "protocol", "epochs", "train_size", "test/acc", "test/acc_final")
_LAST = ("settings", "interpolations")
# Keys of a diverged run's status that are archived.
_OF_DIVERGED = ("epoch", "epochs", "error", *_HOW, "hardware")
_LIMIT = 2**24  # characters of a cell; csv refuses larger ones, which may be hostile


class Archive:
    """A folder of archived results, small enough for version control; it need not exist."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.results_file = self.folder / "results.csv"
        self.figures_folder = self.folder / "figures"

    def numbers(self, fingerprint: str) -> Numbers:
        """Return the paths of the files with a run's numbers."""
        return Numbers(
            self.folder / "curves" / f"{fingerprint}.csv",
            self.folder / "steps" / f"{fingerprint}.npz",
            self.folder / "probes" / f"{fingerprint}.npz",
            self.folder / "dead_units" / f"{fingerprint}.csv",
        )

    def read(self) -> list[Record]:
        """Return all runs, in the file's order; none if there is no file.

        Raises:
            UnreadableError: The file is damaged.
        """
        try:
            with self.results_file.open(newline="", encoding="utf-8") as file:
                csv.field_size_limit(_LIMIT)
                reader = csv.DictReader(file)
                if "fingerprint" not in (reader.fieldnames or ()):
                    raise UsageError("it has no column fingerprint")
                return [self._parsed(line) for line in reader]
        except FileNotFoundError:
            return []
        except (csv.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableError(f"{self.results_file} cannot be read: {error!r}") from None

    def add(self, runs: Iterable[Record]) -> None:
        """Add ended runs, with their metrics and dead units; archived runs do not change.

        A finished run replaces a diverged one.

        Raises:
            OSError: The folder cannot be written.
            UnreadableError: The archive is damaged.
            ValueError: A run could not be read back.
        """
        kept = {run.key: run for run in self.read()}
        for run in runs:
            known = kept.get(run.key)
            if known is None or (known.state, run.state) == ("diverged", "finished"):
                kept[run.key] = self._readable(run)
                if run.metrics is not None:
                    with _new(self.numbers(str(run.identity)).metrics) as file:
                        run.metrics.to_csv(file, index=False, lineterminator="\n")
            path = self.numbers(str(run.identity)).dead_units
            if run.dead_units is not None and not path.exists():
                _write(path, run.dead_units, [run.dead_units])
        lines = [_values(run) for run in kept.values()]
        names = dict.fromkeys([*_FIRST, *(name for line in lines for name in line if name not in _LAST)])
        # Quote all cells: a carriage return in a string would end the line.
        _write(self.results_file, [*names, *_LAST], map(_cells, lines), quoting=csv.QUOTE_ALL)

    def add_arrays(self, run: Record) -> None:
        """Store the loss of every step and all probes, in single precision, unless they are already stored."""
        numbers = self.numbers(str(run.identity))
        losses = None if run.steps is None else {"loss": run.steps["loss"]}
        for path, arrays in ((numbers.steps, losses), (numbers.probes, run.probes)):
            if arrays is not None and not path.exists():
                with _new(path, "wb") as file:
                    small = {name: _single(values) for name, values in arrays.items()}
                    np.savez_compressed(file, **small)  # type: ignore[arg-type]

    def _readable(self, run: Record) -> Record:
        """Return a run as it will be read back; an unreadable run would make the whole file unreadable."""
        try:
            return self._parsed(_cells(_values(run)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{run.name or 'a run'}, seed {run.seed}, cannot be archived: {error!r}") from None

    def _parsed(self, line: Mapping[str, str]) -> Record:
        cells = {name: cell for name, cell in line.items() if cell != ""}
        values: dict[str, Any] = {name: cell if name in _WORDS else from_json(cell) for name, cell in cells.items()}
        settings, interpolations = dict(values.pop("settings")), dict(values.pop("interpolations"))
        check_kinds(values, RESULT_KINDS)
        if lacking := {"options", "overrides", "protocol"} - values.keys() | {"seed"} - settings.keys():
            raise UsageError(f"a run lacks {', '.join(sorted(lacking))}")
        if not values["fingerprint"].isalnum():
            raise UsageError(f"the fingerprint {values['fingerprint']!r} is not alphanumeric")
        state = str(values.get("status", "finished"))
        return Record(
            state=state,
            name=str(values.get("name", "")),
            options=values["options"],
            seed=int(settings.pop("seed")),
            settings=settings,
            interpolations=interpolations,
            overrides=tuple(values["overrides"]),
            identity=values["fingerprint"],
            status={name: values[name] for name in _OF_DIVERGED if name in values},
            result=values if state == "finished" else {},
            numbers=self.numbers(values["fingerprint"]),
        )


def _new(path: Path, mode: str = "w") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return replacing(path, mode)


def _write(path: Path, names: Iterable[str], lines: Iterable[Mapping[str, Any]], **how: Any) -> None:
    with _new(path) as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n", **how)
        writer.writeheader()
        writer.writerows(lines)


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # values beyond single precision become infinite
        return values.astype(np.float32) if values.dtype.kind == "f" else values


def _values(run: Record) -> dict[str, Any]:
    """Return the archived values of a run, by column."""
    composed = {"protocol": run.protocol, "options": run.options, "overrides": list(run.overrides)}
    if run.is_finished:
        values = {**({} if run.folder is None else composed), **run.result, "protocol": run.protocol}
    else:
        reached = {name: run.status[name] for name in _OF_DIVERGED if name in run.status}
        values = {"fingerprint": run.identity, "name": run.name, **composed, **reached, "status": run.state}
    return {**values, "settings": {**run.settings, "seed": run.seed}, "interpolations": run.interpolations}


def _cells(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: (value or "") if name in _WORDS else json.dumps(value) for name, value in values.items()}
