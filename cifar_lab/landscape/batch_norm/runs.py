"""Runs with and without BatchNorm, set beside each other by their settings."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cifar_lab.runs import Record
from cifar_lab.runs.labels import data_name, has_constant_rate

# What a run is told by; and what changes with it: BatchNorm in the network, the seed of the data.
_AXES = {"bn": "${bn}", "model.init": "${model.init}", "optimizer.lr": "${optimizer.lr}", "seed": "${seed}"}
# Beside the training: what is recorded, and when.
_NO_SETTINGS = ("probe", "callbacks")
NAMES = {True: "with BatchNorm", False: "without BatchNorm"}
INITS = {"default": "PyTorch's initialisation", "xavier": "Xavier", "he": "He"}


@dataclass(frozen=True, eq=False)
class LandscapeRun:
    """A run by what the comparison varies.

    Attributes:
        bn: Whether it has BatchNorm.
        init: How its weights are initialised, by the option's name.
        lr: The optimizer's learning rate.
        seed: Equal for runs of the same batch order.
        record: The run.
    """

    bn: bool
    init: str
    lr: float
    seed: int
    record: Record

    @cached_property
    def described(self) -> str:
        """It in words: `without BatchNorm, lr 0.002, seed 0`."""
        return f"{NAMES[self.bn]}, lr {self.lr:g}, seed {self.seed}"


@dataclass(frozen=True)
class Group:
    """Runs that differ in BatchNorm, initialisation, learning rate and seed alone.

    Attributes:
        settings: What they share, by dotted key.
        runs: By BatchNorm, initialisation, learning rate and seed.
    """

    settings: Mapping[str, Any]
    runs: tuple[LandscapeRun, ...]

    @property
    def inits(self) -> list[str]:
        """Their initialisations, the report's first."""
        return sorted({run.init for run in self.runs}, key=lambda init: (init != "xavier", init))

    def arm(self, bn: bool, init: str, lr: float) -> list[LandscapeRun]:
        """The runs of one network, initialisation and learning rate, by seed."""
        return [run for run in self.runs if (run.bn, run.init, run.lr) == (bn, init, lr)]

    @property
    def is_beginning(self) -> bool:
        """Whether its runs train on all images, as longer ones do as far as these go."""
        return self.length[0] == math.inf and has_constant_rate(self.settings)

    @property
    def length(self) -> tuple[float, float]:
        """Training images asked for, infinite if all, and epochs."""
        return float(self.settings.get("data.train_size") or float("inf")), float(self.settings["epochs"])

    def title(self, runs: Iterable[LandscapeRun] | None = None) -> str:
        """What was trained: the network, the data, its training images, the epochs and the seeds.

        Args:
            runs: Those that a figure shows; without them all.
        """
        shown = list(self.runs if runs is None else runs)
        first = shown[0].record
        network = str(first.options.get("model") or str(self.settings.get("model._target_", "")).rpartition(".")[2])
        data = data_name(str(first.options.get("data") or "data of unknown name"))
        sizes = {run.record.result["train_size"] for run in shown if run.record.is_finished}
        asked = self.settings.get("data.train_size")
        images = f"{sizes.pop():,}" if len(sizes) == 1 else "all" if asked is None else f"{asked:,.0f}"
        seeds = sorted({run.seed for run in shown})
        told = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        return f"{network} on {data}, {images} training images, {self.settings['epochs']:g} epochs, {told}"


def optimizer_of(group: Group) -> str:
    """The name of the optimizer that a group's runs share: `Adam`, `SGD`."""
    return str(group.settings.get("optimizer._target_", "")).rpartition(".")[2]


def groups(measured: Iterable[Record]) -> list[Group]:
    """Runs by the settings that they share; of those whose numbers must be equal one counts.

    Those that can be read and have trained, whatever has become of them.
    """
    found: dict[str, dict[tuple[bool, str, float, int], LandscapeRun]] = {}
    shared: dict[str, dict[str, Any]] = {}
    for one in measured:
        settings = one.settings
        if one.seed is None or "optimizer.lr" not in settings or not isinstance(settings.get("bn"), bool):
            continue
        own = {key: value for key, value in settings.items() if not _varies(key, one)}
        key = json.dumps(own, sort_keys=True)
        init = str(settings.get("model.init", "default"))
        run = LandscapeRun(settings["bn"], init, float(settings["optimizer.lr"]), one.seed, one)
        place = (run.bn, run.init, run.lr, run.seed)
        shared[key] = own
        known = found.setdefault(key, {}).setdefault(place, run)
        if one.is_finished and not known.record.is_finished:
            found[key][place] = run
    return [
        Group(shared[key], tuple(runs[place] for place in sorted(runs, key=lambda place: (not place[0], *place[1:]))))
        for key, runs in found.items()
    ]


def the_group(measured: Sequence[Record]) -> Group:
    """The one group of runs that are to be compared.

    Raises:
        ValueError: There is no run, or they differ in more than BatchNorm, initialisation, learning rate and seed.
    """
    found = groups(measured)
    if not found:
        raise ValueError(
            "no run can be compared; name runs, or folders with runs, of study=bn_landscape or bn_smoothness"
        )
    if len(found) > 1:
        first, second = found[0].settings, found[1].settings
        keys = sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))
        told = ", ".join(f"{key} ({first.get(key)} and {second.get(key)})" for key in keys[:3])
        raise ValueError(
            f"the runs differ in {told}; name runs that differ in bn, model.init, optimizer.lr and seed alone"
        )
    return found[0]


def _varies(key: str, run: Record) -> bool:
    source = run.sources.get(key, "")
    follows = any(axis in source for axis in _AXES.values())
    return key in _AXES or key in ("model.batch_norm", "data.seed") or follows or key.split(".")[0] in _NO_SETTINGS
