"""Default name of a sweep: its shared settings that change numbers, and its axes."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lab.config import naming, schema, studies
from cifar_lab.config.precedence import Loader
from cifar_lab.runs.fingerprints import digest, settings, value_of, with_value

_MAX_BYTES = 255  # limit of a file name
_LONGEST = 100  # limit of a name, in characters; the shared settings are cut first
_LEAST_OF_SHARED = 40
# Never in a name: seeds share a table, and the location of the images changes nothing.
_UNNAMED = ("seed", "data.root", "data.verify")
_PARTLY_HASHED = ("trainer", "callbacks")


class SweepName:
    """The default name of a sweep, from its composed jobs.

    Args:
        axes: The keys that vary, as typed.
        fixed: The keys that all jobs share.
        is_study: Whether a study has set the axes; the study's name then replaces theirs.
    """

    def __init__(self, axes: Iterable[str], fixed: Iterable[str], is_study: bool) -> None:
        self.axes = "" if is_study else "-".join(axes)
        self.fixed = [key for key in fixed if not key.startswith("hydra") and key not in _UNNAMED]
        self.shared: dict[str, str] = {}  # the shared settings that change numbers, by key

    def look(self, job: DictConfig, plain: dict[str, Any], loader: Loader) -> None:
        """Record the shared settings that change numbers in the job that the loader has just composed."""
        for key in self.fixed:
            if key not in self.shared and _changes(key, job, plain, loader):
                value = loader.choices.get(key, value_of(plain, key))
                self.shared[key] = str(value) if key == "experiment" else f"{key}={studies.as_typed([value])}"

    def of(self, default: str) -> str:
        """Return the name, given the `default` from the study, the experiment or the model."""
        if not self.axes:
            for key in ("experiment", "model"):
                if default.endswith(self.shared.get(key, "").removeprefix("model=")):
                    self.shared.pop(key, None)
        words = [self.shared[key] for key in sorted(self.shared, key=_place)]
        former = self.axes or default
        shared = naming.short("-".join(words), max(_LEAST_OF_SHARED, _LONGEST - len(former)))
        own = naming.short(former)
        return "-".join(filter(None, [shared, own] if self.axes else [own, shared]))

    def give(self, jobs: Collection[DictConfig]) -> tuple[list[str], tuple[Path, ...]]:
        """Name the sweep in its composed jobs; return the override that sets the name, and the former name's folder."""
        first = next(iter(jobs))
        default = str(first.name)  # of the study, the experiment or the model
        former, name, folders = self.axes or default, self.of(default), []
        for each in (former, name):
            for job in jobs:
                job.name = each
            folders.append(Path(first.hydra.sweep.dir))
        has_former = folders[0] != folders[1] and len(os.fsencode(former)) <= _MAX_BYTES
        return [] if name == default else [f"name='{name}'"], (folders[0],) if has_former else ()


def _place(key: str) -> tuple[bool, bool, str]:
    """Sort key for a name: first the experiment, then options and scalars, then settings of options."""
    return key != "experiment", "." in key, key


def _changes(key: str, job: DictConfig, plain: dict[str, Any], loader: Loader) -> bool:
    """Return whether a typed key changes numbers compared with the option or value that it would have untyped."""
    hashed = settings(plain, with_hardware=False)
    if key in loader.choices:
        named = loader.named.get(key)
        return named != loader.choices[key] and (key == "experiment" or _is_another(key, named, hashed, loader))
    now, before = value_of(plain, key), value_of(loader.untyped, key)
    if isinstance(before, str) and "${" in before:  # untyped, it follows other values
        with open_dict(job):
            OmegaConf.update(job, key, before)
            before = OmegaConf.select(job, key)
            OmegaConf.update(job, key, now)
    return before != now and digest(settings(with_value(plain, key, before), with_hardware=False)) != digest(hashed)


def _is_another(key: str, named: str | None, hashed: dict[str, Any], loader: Loader) -> bool:
    """Return whether the chosen option of a group changes numbers compared with `named`, the untyped option."""
    file = schema.conf_folder() / key / f"{named}.yaml"
    if key not in _PARTLY_HASHED or not file.exists():
        return key in hashed
    options = (loader.untyped[key], OmegaConf.to_container(OmegaConf.load(file)))
    one, other = (settings({key: option, "grad_clip": 0}, with_hardware=False)[key] for option in options)
    other.pop("defaults", None)
    return bool(one != other)
