"""Comparisons of runs: a row for each composition, over its seeds, and a column for each varying setting."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cifar_lab.runs import Record, from_yaml
from cifar_lab.runs.fingerprints import HARDWARE, NEUTRAL

_SWEEPS = ("study", "search")  # groups that name sweeps; their settings are compared instead
METRICS = ("test/acc", "test/acc_final", "val/acc")
MEANS = ("num_parameters", "train_size", "seconds", "images_per_second")


def values_of(records: Iterable[Record], name: str) -> np.ndarray:
    """Return the value `name` of each result that has it, `(n,)`."""
    values = [record.result.get(name) for record in records]
    return np.array([value for value in values if value is not None], dtype=float)


def mean_and_sd(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation (over n - 1); NaN for too few values."""
    return values.mean() if len(values) else np.nan, values.std(ddof=1) if len(values) > 1 else np.nan


@dataclass(frozen=True)
class Row:
    """A composition and its runs."""

    cells: Mapping[str, str]  # by varying column; empty if unknown
    records: tuple[Record, ...]  # its runs, by seed

    @property
    def label(self) -> str:
        """The row's name in a figure."""
        cells = {column: cell for column, cell in self.cells.items() if cell}
        says_itself = len(cells) == 1 and isinstance(from_yaml(next(iter(cells.values()))), str)
        return ", ".join(cells.values() if says_itself else [f"{key}={cell}" for key, cell in cells.items()])

    @property
    def finished(self) -> list[Record]:
        """The runs that have a result."""
        return [record for record in self.records if record.is_finished]

    @property
    def state(self) -> str:
        """`finished`, or the states of the unfinished runs."""
        rest = [record for record in self.records if not record.is_finished]
        if not rest:
            return "finished"
        if len(self.records) == 1:
            return rest[0].description
        seeds: dict[str, list[str]] = {}
        for record in rest:
            seeds.setdefault(record.description, []).append("?" if record.seed is None else str(record.seed))
        parts = [f"seed{'s' * (len(of) > 1)} {' '.join(of)} {description}" for description, of in seeds.items()]
        return "; ".join([f"{len(self.finished)} of {len(self.records)} finished", *parts])

    @property
    def protocol(self) -> str:
        """The protocol that chooses the epoch; empty if unknown."""
        return next((record.protocol for record in self.records), "")

    @property
    def holds_out(self) -> bool:
        """Whether `val/*` is measured on held-out training images."""
        return self.records[0].holds_out

    def values(self, name: str) -> np.ndarray:
        """Return the value `name` of each finished run that has it, `(n,)`."""
        return values_of(self.finished, name)


@dataclass(frozen=True)
class Comparison:
    """A table of runs: the varying keys, a row for each composition, and the test accuracy that is shown."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    metric: str = "test/acc"

    @cached_property
    def results(self) -> list[Mapping[str, Any]]:
        """The results of all finished runs."""
        return [record.result for row in self.rows for record in row.finished]

    def common(self, name: str) -> Any:
        """Return the value `name` of the results if all finished runs agree on it, else None."""
        values = [result.get(name) for result in self.results]
        return values[0] if values and all(value == values[0] for value in values) else None

    def frame(self) -> pd.DataFrame:
        """Return the table as numbers: accuracies from 0 to 1, other numbers as means over the finished runs."""
        return pd.DataFrame([{**row.cells, **_numbers(row, self.metric)} for row in self.rows])


def by_name(rows: Sequence[Row], title: str = "") -> dict[str, Row]:
    """Return the rows by unique name: the label, or `title` if it is empty, numbered from the second one on."""
    seen: Counter[str] = Counter()
    names = {}
    for row in rows:
        name = row.label or title
        seen[name] += 1
        names[name if seen[name] == 1 else f"{name} ({seen[name]})"] = row
    return names


def _numbers(row: Row, metric: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {"protocol": row.protocol, "runs": len(row.records), "finished": len(row.finished)}
    for name in dict.fromkeys((*METRICS, metric)):
        numbers[f"{name}_mean"], numbers[f"{name}_sd"] = mean_and_sd(row.values(name))
    for name in MEANS:
        numbers[name], _ = mean_and_sd(row.values(name))
    seeds = [str(record.seed) for record in row.records if record.seed is not None]
    return {**numbers, "seeds": " ".join(seeds), "state": row.state}


def compare(records: Sequence[Record], metric: str = "test/acc") -> Comparison:
    """Group runs by their settings except the seed, and find the columns that distinguish the groups."""
    jobs = {record.job_without_seed: record.composition for record in records if not record.is_missing}
    groups: dict[object, list[Record]] = {}
    for record in records:
        job = record.job_without_seed
        key = jobs.get(job, job) if record.is_missing else record.composition
        groups.setdefault(key, []).append(record)
    columns = tuple(
        column
        for column in varying(records)
        # Options that do not change numbers, such as a logger, may differ within a row.
        if column != "protocol" and all(len({_cell(record, column) for record in of}) == 1 for of in groups.values())
    )
    rows = [
        Row(
            {column: _cell(group[0], column) for column in columns},
            tuple(sorted(group, key=lambda record: (record.seed is None, record.seed or 0))),
        )
        for group in groups.values()
    ]
    return Comparison(columns, tuple(rows), metric)


def one_loss(records: Iterable[Record]) -> bool:
    """Return whether all runs train with the same loss, which makes its values comparable."""
    return len({repr(_loss(record)) for record in records if not record.is_missing}) <= 1


def _loss(record: Record) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in record.settings.items() if key.startswith("loss."))


def varying(records: Sequence[Record]) -> list[str]:
    """Return the keys that distinguish runs: groups by their options, and settings that differ within the same option.

    A setting that is derived from a different one in every run is excluded, such as a schedule's length, which follows
    the epochs. Keys of the command line come first, in its order.
    """
    options: dict[str, set[str | None]] = {}
    for record in records:
        for group, option in record.options.items():
            options.setdefault(group, set()).add(option)
    runs = [record for record in records if not record.is_missing]
    own = {key for record in runs for key in record.settings.keys() - record.sources.keys()}
    following = {key for record in runs for key in record.settings} - own
    values: dict[str, dict[str | None, set[str]]] = {}
    for record in records:
        for key, value in record.settings.items():
            if key not in following:
                values.setdefault(key, {}).setdefault(_option(record, key), set()).add(repr(value))
    for key, left in HARDWARE.items():  # set in some runs, chosen by the hardware in others
        values[key] = {None: {repr(record.settings.get(key, left)) for record in records}}
    for key in NEUTRAL.keys() & values.keys():  # settings omit neutral values
        for record in runs:
            if (option := _option(record, key)) in values[key]:
                values[key][option].add(repr(record.settings.get(key, NEUTRAL[key])))
    columns = [group for group, different in options.items() if len(different) > 1 and group not in _SWEEPS]
    columns += [key for key, of_options in values.items() if any(len(one) > 1 for one in of_options.values())]
    lines = {line: None for record in records for line in record.overrides}
    typed = list({line.lstrip("+").partition("=")[0]: None for line in lines})
    return sorted(columns, key=lambda key: typed.index(key) if key in typed else len(typed))


def _option(record: Record, key: str) -> str | None:
    """Return the chosen option of a setting's group; None if it has no group."""
    group, is_nested, _ = key.partition(".")
    return record.options.get(group) if is_nested else None


def as_text(value: Any) -> str:
    """Format a setting as on a command line: `0.001`, `true`, `[64,128,256]`."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return json.dumps(value)


def _cell(record: Record, column: str) -> str:
    if column in record.options:
        return record.options[column] or "none"
    if column in record.settings or column in HARDWARE:
        return as_text(record.settings.get(column, HARDWARE.get(column)))
    typed = [value for key, _, value in (line.lstrip("+").partition("=") for line in record.overrides) if key == column]
    if typed or "." in column or column not in NEUTRAL:  # a different class may not have a nested key
        return typed[-1] if typed else ""
    return as_text(NEUTRAL[column])
