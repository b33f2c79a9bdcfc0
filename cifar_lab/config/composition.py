"""The checks of one composition, and of the options that it is made of."""

import difflib
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


def check_options(override: Override, loader: Loader, search: list[str]) -> None:
    """Refuse an override whose option does not exist, with the nearest that does.

    Args:
        override: Of a group.
        loader: What composes.
        search: Where to look for a user's own options.

    Raises:
        ValueError: In one line.
    """
    group = override.key_or_group
    if override.is_delete():
        raise UsageError(f"~{group}: every group needs an option; set {group}= to another one")
    options = loader.get_group_options(group, config_name="train", overrides=search)
    for line in values(override):
        option = line.partition("=")[2]
        if option not in options:
            nearest = difflib.get_close_matches(option, options, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(f"{group}={option} does not exist; {hint}there are {', '.join(options)}")


def check_closed(loader: Loader, lines: Sequence[str]) -> None:
    """Refuse to train what a search's file leaves open.

    Args:
        loader: What has composed it.
        lines: The command line.

    Raises:
        ValueError: In one line that names what is open.
    """
    typed = set(map(naming.key_of, lines))
    missing = [key for key in loader.space if key not in typed]
    if missing:
        choice = f"search={loader.choices['search']}"
        raise UsageError(
            f"{choice} leaves {' and '.join(missing)} open; python -m cifar_lab.search {choice} tries values"
        )


def foreign_groups(config: dict[str, Any]) -> set[str]:
    """Groups whose component no option of ours makes."""
    made = {group: option["_target_"] for group, option in config.items() if "_target_" in _mapping(option)}
    return {group for group, target in made.items() if not schema.settings_of(group, target)}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def check(config: dict[str, Any], known: dict[str, Any], foreign: Collection[str] = ()) -> None:
    """All checks of one composition.

    Args:
        config: The composition in plain values.
        known: The same before the command line's values.
        foreign: Groups whose component is none of ours.

    Raises:
        ValueError: In one line.
    """
    checks.check_keys(config, known)
    checks.check_values(config, known, foreign)
    targets.check_targets(config, config["allow"])
    combinations.check_together(config)
    data = config["data"]
    if data["_target_"].endswith(".CIFAR10DataModule") and not files.may_download(data["root"], data["download"]):
        files.find(data["root"])


def check_own_options(loader: Loader) -> None:
    """Refuse a key in a user's option that its target does not have, as far as we have an option of that target.

    Raises:
        ValueError: In one line.
    """
    for group, option in loader.choices.items():
        settings = loader.before_values.get(group)
        if not isinstance(settings, DictConfig) or "_target_" not in settings or schema.is_own(group, option):
            continue
        theirs = schema.settings_of(group, str(settings._target_))
        for key in settings:
            if theirs and key not in theirs:
                nearest = difflib.get_close_matches(str(key), theirs, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
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
        key = merging.group(1).lstrip("+").partition("=")[0]
        words = {
            "bn": "true or false",
            "name": "a word",
            "allow": "a list",
            "published": "a number",
            "hydra.launcher.setup": "a list",
        }
        ranged = key.removeprefix("hydra.launcher.")
        if key in words or ranged in checks.RANGES:
            return (
                f"{merging.group(1)}: it takes {checks.RANGES[ranged].words if ranged in checks.RANGES else words[key]}"
            )
    return " ".join(f"{text} {error.__cause__ or ''}".split())


def composed(lines: Sequence[str]) -> dict[str, Any]:
    """What a command line composes, plain values.

    Raises:
        ValueError: It cannot be composed.
    """
    with composing():
        return naming.plain(compose("train", list(lines), return_hydra_config=True))
