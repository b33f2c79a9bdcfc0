"""The checks of one composition, and of the options that it is made of."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import checks, combinations, naming, schema, targets
from cifar_lab.config.axes import values
from cifar_lab.config.command_line import composing
from cifar_lab.config.precedence import Loader
from cifar_lab.data import files
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.fingerprints import leaves

# What keys take that Hydra checks by their types.
_TYPES = {"bn": "true or false", "name": "a word", "allow": "a list", "published": "a number", "setup": "a list"}


def check_options(override: Override, loader: Loader, search: list[str]) -> None:
    """Raise `UsageError` for an override whose option neither we have nor the `search` path, with the nearest."""
    group = override.key_or_group
    if override.is_delete():
        raise UsageError(f"~{group}: every group needs an option; set {group}= to another one")
    options = loader.get_group_options(group, config_name="train", overrides=search)
    for line in values(override):
        option = line.partition("=")[2]
        if option not in options:
            there = f"there are {', '.join(options)}{checks.did_you_mean(option, options)}"
            raise UsageError(f"{group}={option} does not exist; {there}")


def check_closed(loader: Loader, lines: Sequence[str]) -> None:
    """Raise `UsageError` for a command line that leaves open what a search's file varies."""
    typed = set(map(naming.key_of, lines))
    missing = [key for key in loader.space if key not in typed]
    if missing:
        choice = f"search={loader.choices['search']}"
        raise UsageError(
            f"{choice} leaves {' and '.join(missing)} open; python -m cifar_lab.search {choice} tries values"
        )


def foreign_groups(config: dict[str, Any]) -> set[str]:
    """Groups whose component no option of ours makes."""
    made = {group: option for group, option in config.items() if isinstance(option, dict) and "_target_" in option}
    return {group for group, option in made.items() if not schema.settings_of(group, option["_target_"])}


def check(config: dict[str, Any], known: dict[str, Any], foreign: Collection[str] = ()) -> None:
    """Raise `UsageError` for a composition of plain values; `known` and `foreign` as for `checks.check_values`."""
    checks.check_keys(config, known)
    checks.check_values(config, known, foreign)
    targets.check_targets(config, config["allow"])
    combinations.check_together(config)
    data = config["data"]
    if data["_target_"].endswith(".CIFAR10DataModule"):
        look_up = files.resolve if files.may_download(data["root"], data["download"]) else files.find
        look_up(data["root"])


def check_own_options(loader: Loader) -> None:
    """Raise `UsageError` for a key in a user's option that our own option of the same target lacks."""
    for group, option in loader.choices.items():
        settings = loader.before_values.get(group)
        is_own = (schema.conf_folder() / group / f"{option}.yaml").is_file()
        if is_own or not isinstance(settings, DictConfig) or "_target_" not in settings:
            continue
        theirs = schema.settings_of(group, str(settings._target_))
        for key in settings:
            if theirs and key not in theirs:
                hint = checks.did_you_mean(str(key), theirs)
                raise UsageError(f"{group}={option}: {settings._target_} has no {key!s}{hint}")


def reworded(error: Exception, loader: Loader) -> str:
    """What Hydra or OmegaConf found wrong, in one line and in the command line's words."""
    text = str(error)
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        known = OmegaConf.to_container(loader.before_values, resolve=False)
        assert isinstance(known, dict)
        return checks.unknown_key(unknown.group(1), dict(leaves(known)))
    merging = re.match(r"Error merging override (\S+)", text)
    if merging:
        key = naming.key_of(merging.group(1)).removeprefix("hydra.launcher.")
        words = checks.RANGES[key].words if key in checks.RANGES else _TYPES.get(key)
        if words is not None:
            return f"{merging.group(1)}: it takes {words}"
    return " ".join(f"{text} {error.__cause__ or ''}".split())


def composed(lines: Sequence[str]) -> dict[str, Any]:
    """What a command line composes, plain values; raises `UsageError` if it cannot be composed."""
    with composing():
        return naming.plain(compose("train", list(lines), return_hydra_config=True))
