"""Groups of runs with and without BatchNorm whose other settings are the same."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Record
from cifar_lab.runs.labels import data_words, has_constant_rate

_AXES = ("bn", "model.init", "optimizer.lr", "seed")
NAMES = {True: "with BatchNorm", False: "without BatchNorm"}
INITS = {"default": "PyTorch's initialisation", "xavier": "Xavier", "he": "He"}


@dataclass(frozen=True, eq=False)
class LandscapeRun:
    """A run and its values on the axes of the comparison; the seed is that of the batch order."""

    bn: bool
    init: str
    lr: float
    seed: int
    record: Record

    @property
    def place(self) -> tuple[bool, str, float, int]:
        """Sort key within a group: runs with BatchNorm first."""
        return not self.bn, self.init, self.lr, self.seed

    @property
    def described(self) -> str:
        """Label such as `without BatchNorm, lr 0.002, seed 0`."""
        return f"{NAMES[self.bn]}, lr {self.lr:g}, seed {self.seed}"


@dataclass(frozen=True)
class Group:
    """Runs that differ only in BatchNorm, initialisation, learning rate and seed."""

    settings: Mapping[str, Any]  # shared settings by dotted key
    runs: tuple[LandscapeRun, ...]  # sorted by BatchNorm, initialisation, learning rate and seed

    @property
    def inits(self) -> list[str]:
        """Initialisations of the runs; `xavier`, the report's, comes first."""
        return sorted({run.init for run in self.runs}, key=lambda init: (init != "xavier", init))

    def arm(self, bn: bool, init: str, lr: float) -> list[LandscapeRun]:
        """Return the runs of one network, initialisation and learning rate, sorted by seed."""
        return [run for run in self.runs if (run.bn, run.init, run.lr) == (bn, init, lr)]

    @property
    def is_beginning(self) -> bool:
        """Whether the runs use all images at a constant rate, so that they equal the beginning of longer runs."""
        return self.length[0] == math.inf and has_constant_rate(self.settings)

    @property
    def length(self) -> tuple[float, float]:
        """Requested number of training images (infinity for all) and number of epochs."""
        return float(self.settings.get("data.train_size") or float("inf")), float(self.settings["epochs"])

    def title(self, compared: Iterable[LandscapeRun]) -> str:
        """Describe the runs of a figure: network, data, number of training images, epochs and seeds."""
        runs = list(compared)
        options = runs[0].record.options
        network = str(options.get("model") or str(self.settings.get("model._target_", "")).rpartition(".")[2])
        data = data_words(str(options.get("data") or "data of unknown name"), runs[0].record.settings)
        sizes = {run.record.result["train_size"] for run in runs if run.record.is_finished}
        train_size = self.settings.get("data.train_size")
        images = f"{sizes.pop():,}" if len(sizes) == 1 else "all" if train_size is None else f"{train_size:,.0f}"
        seeds = sorted({run.seed for run in runs})
        words = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        return f"{network} on {data}, {images} training images, {self.settings['epochs']:g} epochs, {words}"


def optimizer_of(group: Group) -> str:
    """Return the class name of the group's optimizer, such as `Adam` or `SGD`."""
    return str(group.settings.get("optimizer._target_", "")).rpartition(".")[2]


def groups(records: Iterable[Record]) -> list[Group]:
    """Group runs by the settings that they share; runs without BatchNorm option, learning rate or seed are skipped.

    Runs with the same settings and seed count once, a finished one if there is one.
    """
    by_settings: dict[str, tuple[dict[str, Any], dict[object, LandscapeRun]]] = {}
    for record in records:
        settings = record.settings
        if record.seed is None or "optimizer.lr" not in settings or not isinstance(settings.get("bn"), bool):
            continue
        shared = {key: value for key, value in settings.items() if not _varies(key, record)}
        init = str(settings.get("model.init", "default"))
        run = LandscapeRun(settings["bn"], init, float(settings["optimizer.lr"]), record.seed, record)
        _, runs = by_settings.setdefault(json.dumps(shared, sort_keys=True), (shared, {}))
        if run.place not in runs or (record.is_finished and not runs[run.place].record.is_finished):
            runs[run.place] = run
    return [
        Group(shared, tuple(sorted(runs.values(), key=lambda run: run.place))) for shared, runs in by_settings.values()
    ]


def the_group(records: Sequence[Record]) -> Group:
    """Return the only group of the runs.

    Raises:
        ValueError: There is no run, or the runs differ in more than BatchNorm, initialisation, learning rate and seed.
    """
    of_records = groups(records)
    if not of_records:
        raise UsageError(
            "no run can be compared; name runs, or folders with runs, of study=bn_landscape or bn_smoothness"
        )
    if len(of_records) > 1:
        first, second = of_records[0].settings, of_records[1].settings
        keys = sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))
        differences = ", ".join(f"{key} ({first.get(key)} and {second.get(key)})" for key in keys[:3])
        raise UsageError(
            f"the runs differ in {differences}; name runs that differ only in bn, model.init, optimizer.lr and seed"
        )
    return of_records[0]


def _varies(key: str, record: Record) -> bool:
    """Whether a setting is an axis of the comparison, interpolates one, or does not affect training."""
    follows = any(f"${{{axis}}}" in record.sources.get(key, "") for axis in _AXES)
    return key in (*_AXES, "model.batch_norm", "data.seed") or follows or key.split(".")[0] in ("probe", "callbacks")
