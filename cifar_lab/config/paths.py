"""Overrides that name folders, as a shell passes them.

Hydra's grammar gives apostrophes, commas, parentheses and equals signs a special meaning, and refuses non-ASCII
letters.
"""

import os
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from cifar_lab.machine.exit_codes import UsageError

_FOLDERS = ("data.root", "resume", "hydra.run.dir", "hydra.sweep.dir")
_SEVERAL = ("weights",)  # a sweep takes several, joined by commas
_RENAMED = {"logger.log_graph": "logger.tensorboard.log_graph"}
_UNREADABLE = object()


def renamed(word: str) -> str:
    """Replace a key of version 0.1 in an override by its current name."""
    key, separator, value = word.partition("=")
    return f"{_RENAMED.get(key, key)}{separator}{value}"


def as_typed(word: str) -> str:
    """Quote a path in an override for Hydra if necessary, and expand its `~`.

    Raises:
        ValueError: A folder's name is empty, for example from an unset variable, or its `~` cannot be expanded.
    """
    key, separator, value = word.partition("=")
    is_folder, may_be_several = key.lstrip("+") in _FOLDERS, key.lstrip("+") in _SEVERAL
    if (is_folder or may_be_several) and separator and value.strip() in ("", "''", '""'):
        raise UsageError(f"{word}: a folder's name is empty; name one, or leave {key}= out")
    if value.startswith("~"):
        try:
            value = str(Path(value).expanduser())
        except RuntimeError:
            raise UsageError(f"{word}: ~ cannot be expanded; set HOME, or type the full path") from None
    word = f"{key}{separator}{value}"
    if may_be_several:
        paths = _split(value)
        if any("," in path for path in paths) or value_of(word) is _UNREADABLE:
            return f"{key}={','.join(map(_as_text, paths))}"
    if word.startswith("-") or not (is_folder or value.startswith(("/", "./", "../"))):
        return word
    parsed = value_of(word)
    is_read = parsed is None or isinstance(parsed, str) if is_folder else parsed is not _UNREADABLE
    return word if is_read else f"{key}={quoted(value)}"


def _split(value: str) -> list[str]:
    """Split paths joined by commas into the longest ones that exist, because a run's folder may contain commas."""
    parts, paths = value.split(","), []
    while parts:
        lengths = range(len(parts), 1, -1)
        length = next((length for length in lengths if os.path.exists(",".join(parts[:length]))), 1)
        paths.append(",".join(parts[:length]))
        del parts[:length]
    return paths


def _as_text(path: str) -> str:
    """Quote a path unless Hydra reads it unquoted, as text or as `null`."""
    value = value_of(f"weights={path}")
    return path if value is None or isinstance(value, str) else quoted(path)


def value_of(word: str) -> Any:
    """Return the value that Hydra reads from an override."""
    try:
        return OverridesParser.create().parse_override(word).value()
    except Exception:  # unforeseen input raises almost any exception
        return _UNREADABLE


def quoted(text: object) -> str:
    """Quote text so that Hydra reads it back unchanged."""
    return QuotedString(str(text), Quote.single).with_quotes()
