"""How long a run is beside the published row whose settings it otherwise has."""

from collections.abc import Mapping
from typing import Any

from cifar_lab.report.published import LENGTH_KEYS, Row, Scale
from cifar_lab.runs.labels import has_constant_rate
from cifar_lab.table.comparison import written

FULL = "full length"
_SCALES = {Scale.QUICK: "a tenth of the epochs", Scale.SMOKE: "one epoch of 1,000 images"}
# The share of the training images that a protocol holds out; a run with another one is of no row.
_HELD_OUT = {"report": 0.0, "holdout": 0.1}
# Settings in which a run of a row may differ from the row: its seed, and its protocol, which the tables tell apart.
_OF_A_RUN = ("seed", "data.seed", "data.val_fraction", "protocol.name", "protocol.val_fraction")
_PART = "data.train_size"
_FOLLOWING = ("averaging.epochs", "scheduler.T_max")  # the epochs, unless the command line says otherwise


def length_of(row: Row, settings: Mapping[str, Any], seed: int | None = 0) -> str | None:
    """How long a run is beside the published row, in words, equal for equal lengths; None if it is no run of that row.

    Args:
        row: What was published.
        settings: Those that can change the run's numbers, by dotted key, without the seed.
        seed: The run's; one whose images are drawn by another seed is of no row.
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
    others = "".join(f", {key}={written(settings.get(key))}" for key in sorted(differing - {"epochs", _PART}))
    return f"{settings['epochs']:g} epochs{images}{others}"


def is_beginning(row: Row, settings: Mapping[str, Any]) -> bool:
    """Whether a run of the row differs in the epochs alone, and trains as the row does as far as both go.

    The learning rate of such a row does not follow the epochs.
    """
    is_constant = has_constant_rate(row.settings) and "averaging._target_" not in row.settings
    return is_constant and _differing(row, settings) == {"epochs"}


def _differing(row: Row, settings: Mapping[str, Any]) -> set[str]:
    """The settings of a run that differ from the row, except those that may."""
    keys = (settings.keys() | row.settings.keys()) - set(_OF_A_RUN)
    return {key for key in keys if settings.get(key) != row.settings.get(key)}


def order(length: str) -> tuple[int, str]:
    """The place of a length among the tables: a tenth of the epochs, then one epoch, then others."""
    known = [*_SCALES.values()]
    return (known.index(length) if length in known else len(known), length)
