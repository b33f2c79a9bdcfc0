"""Check one composition and the options that it consists of."""

import inspect
import itertools
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import checks, combinations, naming, paths, schema, targets
from cifar_lab.config.axes import values
from cifar_lab.config.command_line import composing
from cifar_lab.config.precedence import Loader
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.fingerprints import leaves

# Groups without a default option, whose files set keys of other groups.
_GLOBAL = ("experiment", "study", "search", "debug")
_SEVERAL = ("logger", "callbacks")  # groups that accept a list of options
_EXTRAS = ("wandb", "mlflow")  # loggers whose package and extra have the same name
# Required keys of an option: torch's factories get further arguments later, and Lightning has its part of a schedule.
_NEEDED = {
    "optimizer": {"_partial_": "true"},
    "scheduler": {"_partial_": "true", "lightning": "{interval: epoch, frequency: 1}"},
}
# Types of the keys that Hydra checks against the schema.
_TYPES = {
    "bn": "true or false",
    "name": "a word",
    "allow": "a list",
    "tags": "a list",
    "freeze": "a list",
    "published": "a number",
    "setup": "a list",
}


def check_options(override: Override, loader: Loader, search: list[str]) -> None:
    """Raise `UsageError`, naming the nearest, for an option that is neither in `conf/` nor on the `search` path."""
    group = override.key_or_group
    if override.is_delete():
        raise UsageError(f"~{group}: every group needs an option; set {group}= to a different one")
    options = loader.get_group_options(group, config_name="train", overrides=search)
    for option in itertools.chain(*(_options_in(line) for line in values(override))):
        if option not in options:
            nearest = "none" if option == "null" else option
            there = f"there are {', '.join(options)}{checks.did_you_mean(nearest, options)}"
            raise UsageError(f"{group}={option} does not exist; {there}")
        for source in itertools.chain(*map(paths.value_of, search)):
            _check_file(Path(source.removeprefix("file://")) / group / f"{option}.yaml", group)


def _options_in(word: str) -> list[str]:
    """Return the options that a word chooses: one, or several of a group that accepts a list."""
    group, _, value = word.partition("=")
    several = value[1:-1].split(",") if group in _SEVERAL and value[:1] + value[-1:] == "[]" else [value]
    return [option.strip(" '\"") for option in several]


def _check_file(path: Path, group: str) -> None:
    """Raise `UsageError` if the user's option file is damaged. Without such a file, the option is ours."""
    if not path.is_file():
        return
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8; save it as UTF-8") from None
    with suppress(yaml.YAMLError):  # Hydra names the line
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            what = "is empty" if content is None else f"holds a {type(content).__name__}"
            raise UsageError(f"{path} {what}; an option file has `key: value` lines")
    if group in _GLOBAL and not re.match(r"#\s*@package\s+_global_\s*$", text, re.MULTILINE):
        raise UsageError(f"{path}: its first line must be `# @package _global_`")


def is_left_out(override: Override) -> bool:
    """Return whether an override, such as `experiment=null`, chooses no option of a group without a default."""
    return override.key_or_group in _GLOBAL and override.value() is None and not override.is_delete()


def check_closed(loader: Loader, lines: Sequence[str]) -> None:
    """Raise `UsageError` if a command line does not set every axis of its search."""
    typed = set(map(naming.key_of, lines))
    missing = [key for key in loader.space if key not in typed]
    if missing:
        choice = f"search={loader.choices['search']}"
        raise UsageError(
            f"{choice} leaves {' and '.join(missing)} open; python -m cifar_lab.search {choice} tries values"
        )


def foreign_groups(config: dict[str, Any]) -> set[str]:
    """Return the groups whose component is not the target of one of our options."""
    made = {group: option for group, option in config.items() if isinstance(option, dict) and "_target_" in option}
    return {group for group, option in made.items() if not schema.settings_of(group, option["_target_"])}


def check(config: dict[str, Any], known: dict[str, Any], typed: Collection[str] = ()) -> None:
    """Raise `UsageError` for a composition that is not valid.

    Args:
        config: The composition in plain values.
        known: As for `checks.check_values`.
        typed: The keys that the command line sets.
    """
    checks.check_keys(config, known)
    checks.check_values(config, known, foreign_groups(config))
    targets.check_targets(config, config["allow"])
    combinations.check_together(config)
    combinations.check_typed(config, typed)
    for name in _EXTRAS:
        if name in config["logger"]:
            checks.check_installed(f"logger={name}", name, name, name)


def check_own_options(loader: Loader) -> None:
    """Raise `UsageError` for a user's option that lacks a required key, or has one that its target does not accept."""
    for group, option in loader.choices.items():
        settings = loader.before_values.get(group)
        is_own = (schema.conf_folder() / group / f"{option}.yaml").is_file()
        if is_own or not isinstance(settings, DictConfig) or "_target_" not in settings:
            continue
        for key, needed in _NEEDED.get(group, {}).items():
            if key not in settings:
                raise UsageError(f"{group}={option}: its file lacks `{key}: {needed}`")
        theirs = schema.settings_of(group, str(settings._target_))
        for key in map(str, settings):
            if theirs and key not in theirs and not _is_librarys(str(settings._target_), str(key)):
                hint = checks.did_you_mean(str(key), theirs)
                raise UsageError(f"{group}={option}: {settings._target_} has no {key!s}{hint}")


def _is_librarys(target: str, key: str) -> bool:
    """Return whether a library's class accepts a key that our option for it lacks. Imports the library."""
    return not target.startswith("cifar_lab.") and key in inspect.signature(get_object(target)).parameters


def reworded(error: Exception, loader: Loader) -> str:
    """Return an error of Hydra or OmegaConf as one line, in the terms of the command line."""
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
    """Compose a command line into plain values; raise `UsageError` if that fails."""
    with composing():
        return naming.plain(compose("train", list(lines), return_hydra_config=True))
