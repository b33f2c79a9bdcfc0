"""A user's own lab: a folder whose `pyproject.toml` names its option files and its components.

    [tool.cifar_lab]
    config_dir = "my_conf"
    allow = ["my_lab"]

is equivalent to `--config-dir my_conf allow=[my_lab]` in that folder and its subfolders.
"""

import os
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cifar_lab.machine.exit_codes import UsageError


class Lab(NamedTuple):
    """Settings of a lab; empty outside a lab."""

    config_dir: Path | None = None  # folder of its option files
    allow: tuple[str, ...] = ()  # packages whose components may be used


def lab() -> Lab:
    """Return the lab of the current folder, and make its packages importable.

    The search goes up through the parent folders. It stops at a folder of a different user, who could otherwise decide
    what runs.

    Raises:
        ValueError: Its `pyproject.toml` cannot be read, or has unknown keys or wrong types.
    """
    return _lab_of(Path.cwd())


@cache
def _lab_of(current: Path) -> Lab:
    for folder in (current, *current.parents):
        file = folder / "pyproject.toml"
        if not _is_own(folder):
            break
        if _is_own(file) and (table := _table(file)) is not None:
            return _checked(file, table)
    return Lab()


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _table(file: Path) -> Any:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("cifar_lab")
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None


def _checked(file: Path, table: Any) -> Lab:
    if not (isinstance(table, dict) and table.keys() <= {"config_dir", "allow"} and _are_texts(table.get("allow", []))):
        raise UsageError(f'{file}: [tool.cifar_lab] takes config_dir = "my_conf" and allow = ["my_lab"]')
    config_dir = file.parent / str(table["config_dir"]) if "config_dir" in table else None
    if config_dir is not None and not config_dir.is_dir():
        raise UsageError(f"{file}: [tool.cifar_lab] config_dir={table['config_dir']} is not a folder next to it")
    if str(file.parent) not in sys.path and not sys.flags.safe_path:
        sys.path.append(str(file.parent))
    return Lab(config_dir, tuple(table.get("allow", ())))


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
