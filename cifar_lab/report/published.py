"""The published report: its tables and rows, the commands that run a row, and the runs that belong to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

import yaml

from cifar_lab.config import conf_folder
from cifar_lab.config.composition import composed
from cifar_lab.runs.fingerprints import HARDWARE, leaves, settings
from cifar_lab.runs.labels import has_constant_rate

# Settings in which a shortened run differs from the published one, including derived ones such as the cosine's end.
LENGTH_KEYS = (
    "epochs",
    "scheduler.T_0",
    "scheduler.T_max",
    "scheduler.step_size",
    "scheduler.total_steps",
    "trainer.check_val_every_n_epoch",
    "trainer.limit_train_batches",
    "trainer.max_time",
)
_SMOKE_IMAGES = 1000


class Scale(StrEnum):
    """Length of a run: all of the published run, a tenth of its epochs, or one epoch of 1,000 images."""

    FULL = "full"
    QUICK = "quick"
    SMOKE = "smoke"


FULL = "full length"
_SCALES = {Scale.QUICK: "a tenth of the epochs", Scale.SMOKE: "one epoch of 1,000 images"}
# The share of training images that a protocol holds out; a run with a different share belongs to no row.
_HELD_OUT = {"report": 0.0, "holdout": 0.1}
# Settings in which a run may differ from its row: the seed, and the protocol, which tables list separately.
_OF_A_RUN = ("seed", "data.seed", "data.val_fraction", "protocol.name", "protocol.val_fraction")
_PART = "data.train_size"
_FOLLOWING = ("averaging.epochs", "scheduler.T_max")  # equal to the epochs, unless overridden


@dataclass(frozen=True)
class Row:
    """A row of a published table."""

    experiment: str  # option of `conf/experiment/`
    label: str  # name in the table
    overrides: tuple[str, ...] = ()  # on top of the experiment
    train_loss: Mapping[int, float] = field(
        default_factory=dict
    )  # published mean training loss by epoch, counted from 1
    # resolved configuration with `protocol=report` and seed 0, in plain values
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    accuracy: float | None = None  # published test accuracy, from 0 to 1; None if none is printed
    hypotheses: tuple[
        "Hypothesis", ...
    ] = ()  # possible explanations of an accuracy that the row's settings do not reproduce

    @property
    def name(self) -> str:
        """Experiment and overrides: `vgg_a,optimizer.lr=1e-4`."""
        return ",".join((self.experiment, *self.overrides))

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Settings that can change the row's numbers, by dotted key; runs are compared with them."""
        return dict(leaves(settings(self.config)))

    def command(self, scale: Scale = Scale.FULL, seed: int = 0, protocol: str = "report") -> list[str]:
        """Return the arguments of `python -m cifar_lab.train` that run the row, except `name`."""
        shortened = [f"{key}={value}" for key, value in self.shortened(scale).items()]
        return [f"experiment={self.experiment}", *self.overrides, *shortened, f"protocol={protocol}", f"seed={seed}"]

    def shortened(self, scale: Scale) -> dict[str, int]:
        """Return the settings in which a scale differs from the published run, by dotted key.

        Epochs, step sizes and the first cycle's length become a tenth, rounded, at least 1. The averaging's start and
        anneal scale along, because they are shares of the epochs; a start that would leave no epoch becomes 0. Patience
        and cooldown stay.
        """
        if scale is Scale.FULL:
            return {}
        scheduler = self.config["scheduler"]
        lengths = {f"scheduler.{key}": scheduler[key] for key in ("step_size", "T_0") if key in scheduler}
        lengths = {"epochs": self.config["epochs"], **lengths}
        short = {key: 1 if scale is Scale.SMOKE else max(1, round(value / 10)) for key, value in lengths.items()}
        every = self.config["trainer"]["check_val_every_n_epoch"]
        if every is not None and every > short["epochs"]:  # otherwise it would never be validated
            short["trainer.check_val_every_n_epoch"] = short["epochs"]
        start = self.config["averaging"].get("start")
        if start is not None and round(start * short["epochs"]) >= short["epochs"]:
            short["averaging.start"] = 0
        return {**short, "data.train_size": _SMOKE_IMAGES} if scale is Scale.SMOKE else short


@dataclass(frozen=True)
class Hypothesis:
    """A possible reason why the printed settings do not reproduce the published number, and a row that tests it.

    The name is one word; its runs are named `report-hypothesis-<name>`. The row's accuracy is the published one.
    """

    name: str
    words: str
    row: Row


@dataclass(frozen=True)
class Table:
    """A published table: its name (one word), title, rows in the report's order, and a note on their settings."""

    name: str
    title: str
    rows: tuple[Row, ...]
    note: str = ""


@cache
def tables() -> tuple[Table, ...]:
    """Return the report's tables with composed rows; takes 0.1 seconds per row."""
    published = yaml.safe_load((conf_folder() / "published.yaml").read_text(encoding="utf-8"))
    return tuple(
        Table(table["name"], table["title"], tuple(map(_row, table["rows"])), table.get("note", ""))
        for table in published["tables"]
    )


def _row(entry: Mapping[str, Any]) -> Row:
    experiment, overrides = entry["experiment"], tuple(entry.get("overrides", ()))
    config = _of_row(experiment, overrides)
    published = config["published"]
    hypotheses = []
    for one in entry.get("hypotheses", ()):
        # The run reproduces no printed row, so its own configuration has no published number.
        tried = (*overrides, *one["overrides"], "published=null")
        row = Row(experiment, one["label"], tried, config=_of_row(experiment, tried), accuracy=published)
        hypotheses.append(Hypothesis(one["name"], one["words"], row))
    losses = entry.get("train_loss", {})
    return Row(experiment, entry["label"], overrides, losses, config, published, tuple(hypotheses))


def _of_row(experiment: str, overrides: Sequence[str]) -> dict[str, Any]:
    return composed([f"experiment={experiment}", *overrides, "protocol=report", "seed=0"])


def length_of(row: Row, settings: Mapping[str, Any], seed: int | None = 0) -> str | None:
    """Describe a run's length relative to the published row; None if the run does not belong to the row.

    `settings` are those that can change its numbers, by dotted key. A run with `data.seed` different from its own seed
    belongs to no row.
    """
    share = _HELD_OUT.get(str(settings.get("protocol.name")))
    shares = {settings.get("protocol.val_fraction"), settings.get("data.val_fraction", share)}
    if shares != {share} or settings.get("data.seed", seed) != seed:
        return None
    differing = _differing(row, settings) - set(_FOLLOWING)
    differing |= {key for key in _FOLLOWING if key in settings and settings[key] != settings["epochs"]}
    if not differing:
        return FULL
    part = settings.get(_PART)
    images = "" if part is None else f", {part:,.0f} training images"
    for scale, words in _SCALES.items():
        shortened = row.shortened(scale)
        alike = all(settings.get(key) == value for key, value in shortened.items())
        if alike and differing <= {*shortened, _PART}:
            return words if scale is Scale.SMOKE else words + images
    if differing - {*LENGTH_KEYS, _PART}:
        return None
    if differing == {_PART}:
        return f"all epochs{images}"

    from cifar_lab.table.comparison import as_text  # imported here because it imports pandas

    others = "".join(f", {key}={as_text(settings.get(key))}" for key in sorted(differing - {"epochs", _PART}))
    return f"{settings['epochs']:g} epochs{images}{others}"


def is_beginning(row: Row, settings: Mapping[str, Any]) -> bool:
    """Return whether a run differs from the row in the epochs only, and equals it over their common epochs.

    This requires a learning rate that does not depend on the number of epochs.
    """
    is_constant = has_constant_rate(row.settings) and "averaging._target_" not in row.settings
    return is_constant and _differing(row, settings) == {"epochs"}


def _differing(row: Row, settings: Mapping[str, Any]) -> set[str]:
    """Return the settings in which a run differs from the row, except those that may differ."""
    keys = (settings.keys() | row.settings.keys()) - {*_OF_A_RUN, *HARDWARE, "data.root"}
    return {key for key in keys if settings.get(key) != row.settings.get(key)}


def order(length: str) -> tuple[int, str]:
    """Return a sort key of lengths: a tenth of the epochs, then one epoch, then others."""
    known = [*_SCALES.values()]
    return (known.index(length) if length in known else len(known), length)
