"""Restrict the components of a composition, because a `_target_` can name anything that Python can import."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from cifar_lab import current
from cifar_lab.config.lab import lab
from cifar_lab.config.schema import conf_folder
from cifar_lab.machine.exit_codes import UsageError

# Only names directly in these modules, so that no dotted path leads through a module to its imports.
_LIBRARIES = re.compile(
    r"torch\.nn\.[A-Z]\w*|torch\.optim\.[A-Z]\w*|torch\.optim\.lr_scheduler\.[A-Z]\w*"
    r"|lightning\.pytorch\.(callbacks|loggers)\.[A-Z]\w*"
)
_OF_NETWORKS = re.compile(r"cifar_lab\.models\.[A-Z]\w*|torch\.nn\.[A-Z]\w*")
_NAMED = re.compile(r"_target_:\s*(cifar_lab\.[\w.]+)")
# Launchers, sweepers and callbacks of Hydra and its plugins, and the components of logging.
_HYDRAS = re.compile(
    r"hydra\._internal\.core_plugins\.\w+\.[A-Z]\w*|hydra\.experimental\.callbacks\.[A-Z]\w*"
    r"|hydra_plugins\.[\w.]+\.[A-Z]\w*|logging\.(handlers\.)?[A-Z]\w*|colorlog\.[A-Z]\w*"
)


def check_targets(config: Mapping[str, Any], allowed: Iterable[str], how: str = "allow=[{}]") -> None:
    """Check that every component is ours, torch's or Lightning's, or from an allowed package.

    Args:
        config: The composition in plain values.
        allowed: Names of packages.
        how: How to allow a package on the command line, with `{}` for its name.

    Raises:
        ValueError: A component is not allowed. The message names its target and how to allow the package.
    """

    def is_component(target: str) -> bool:
        return current(target) in _components() or bool(_LIBRARIES.fullmatch(target))

    _check(config, ("_target_",), is_component, allowed, how)


def moved(config: Mapping[str, Any]) -> list[str]:
    """Return a note for each component that a user's option names as in version 0.1."""
    return [
        f"{key}={value} has moved to {current(value)}; the old name works until version 0.3"
        for key, value in _targets(config, ("_target_",))
        if current(value) != value
    ]


def check_network_targets(option: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Like `check_targets`, for a network's option read from a file or folder: allows networks and layers only."""
    _check(option, ("_target_",), lambda target: bool(_OF_NETWORKS.fullmatch(target)), allowed, "--allow {}")


def check_hydra_targets(config: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Like `check_targets`, for Hydra's node `{"hydra": ...}`, whose callbacks and logging a `--config-dir` can set."""
    keys = ("_target_", "()", "class")  # `logging.config` calls the last two
    _check(config, keys, lambda target: bool(_HYDRAS.fullmatch(target)), allowed, "allow=[{}]")


@cache
def _components() -> frozenset[str]:
    """Return the targets of the project's own options; its other functions could write files or remove folders."""
    texts = (path.read_text(encoding="utf-8") for path in conf_folder().rglob("*.yaml"))
    return frozenset(target for text in texts for target in _NAMED.findall(text))


def _check(
    config: Mapping[str, Any], keys: tuple[str, ...], is_own: Callable[[str], bool], allowed: Iterable[str], how: str
) -> None:
    prefixes = tuple(f"{package}." for package in (*allowed, *lab().allow))
    for key, value in _targets(config, keys):
        if not is_own(str(value)) and not str(value).startswith(prefixes or "\0"):
            package = str(value).partition(".")[0]
            is_users = package not in sys.stdlib_module_names and package not in ("torch", "lightning", "cifar_lab")
            hint = f"; {how.format(package)} lets it run" if is_users else ""
            raise UsageError(f"{key}={value} is outside this project{hint}")


def _targets(node: Any, keys: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value under one of the keys, with its dotted key; searches lists too."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        if key in keys:
            yield f"{path}{key}", value
        else:
            yield from _targets(value, keys, f"{path}{key}.")
