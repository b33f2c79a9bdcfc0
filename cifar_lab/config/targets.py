"""What a composition may call: a `_target_` can name anything that Python can import."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Names straight in a module of components, so that no path leads through one to what it imports.
_OWN = re.compile(
    r"cifar_lab\.(models|losses|optimizers|(data|callbacks)\.\w+)\.\w+|torch\.nn\.[A-Z]\w*|torch\.optim\.[A-Z]\w*"
    r"|torch\.optim\.lr_scheduler\.[A-Z]\w*|lightning\.pytorch\.(callbacks|loggers)\.[A-Z]\w*"
)
# Hydra's launchers, sweepers and callbacks, those of its plugins, and the parts of logging.
_HYDRAS = re.compile(
    r"hydra\._internal\.core_plugins\.\w+\.[A-Z]\w*|hydra\.experimental\.callbacks\.[A-Z]\w*"
    r"|hydra_plugins\.[\w.]+\.[A-Z]\w*|logging\.(handlers\.)?[A-Z]\w*|colorlog\.[A-Z]\w*"
)
_LOGGING_KEYS = ("()", "class")  # what `logging.config` calls


def check_targets(config: Mapping[str, Any], allowed: Iterable[str], how: str = "allow=[{}]") -> None:
    """Refuse to make anything that is neither ours, nor torch's or Lightning's parts, nor in a package allowed by name.

    Args:
        config: Plain values.
        allowed: Packages.
        how: How the command at hand allows one, `{}` in place of its name.

    Raises:
        ValueError: In one line that names the target and how to allow its package.
    """
    _check(config, ("_target_",), _OWN, allowed, how)


def check_hydra_targets(config: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """The same of Hydra's own part, `{"hydra": ...}`, whose callbacks and logging a `--config-dir` can set."""
    _check(config, ("_target_", *_LOGGING_KEYS), _HYDRAS, allowed, "allow=[{}]")


def _check(
    config: Mapping[str, Any], keys: tuple[str, ...], own: re.Pattern[str], allowed: Iterable[str], how: str
) -> None:
    prefixes = tuple(f"{package}." for package in allowed)
    for key, value in _targets(config, keys):
        if not own.fullmatch(str(value)) and not str(value).startswith(prefixes or "\0"):
            package = str(value).partition(".")[0]
            is_users = package not in sys.stdlib_module_names and package not in ("torch", "lightning", "cifar_lab")
            hint = f"; {how.format(package)} lets it run" if is_users else ""
            raise ValueError(f"{key}={value} lies outside this project{hint}")


def _targets(node: Any, keys: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value under one of the keys, those inside lists too, with its dotted key."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        if key in keys:
            yield f"{path}{key}", value
        else:
            yield from _targets(value, keys, f"{path}{key}.")
