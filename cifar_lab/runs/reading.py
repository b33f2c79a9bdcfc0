"""Reads a run's files as plain values of bounded depth and size, and checks them, because they may be forged."""

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import yaml

from cifar_lab import current
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.files import fresh

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Kinds = Mapping[str, type | tuple[type, ...]]

_DEPTH = 50
WHOLE_LIMIT = 2**63  # integers from here on fit neither numpy nor torch, and far larger ones no float
_KINDS = (bool, int, float, str, type(None))
_NUMBER = (int, float)
_STATUS: Kinds = {
    **dict.fromkeys(("state", "error", "host", "precision", "memory_format", "git_revision"), str),
    **dict.fromkeys(("process", "epoch", "epochs", "step", "threads", "world_size"), int),
    **dict.fromkeys(("compile", "cuda_graphs"), bool),
    **dict.fromkeys(("heartbeat", "start"), _NUMBER),
}
RESULT_KINDS: Kinds = {
    **dict.fromkeys(("name", "protocol", "precision", "fingerprint"), str),
    **dict.fromkeys(("options", "hardware", "versions"), dict),
    **dict.fromkeys(("classes", "confusion_matrix", "mean", "overrides", "std"), list),
    **dict.fromkeys(("train_size", "val_size", "test_size", "num_parameters"), int),
    **dict.fromkeys(("best_epoch", "train_available", "probes"), (int, type(None))),
    **dict.fromkeys(("test/acc_tta", "test/acc_tta_final"), _NUMBER),
    **dict.fromkeys(("test/acc", "test/acc_final", "test/loss", "test/loss_final"), _NUMBER),
    **dict.fromkeys(("epochs", "val/acc", "val/loss", "seconds"), _NUMBER),
    **dict.fromkeys(("images_per_second", "peak_memory_bytes", "published", "probe_seconds"), (*_NUMBER, type(None))),
}
_CONFIG: Kinds = {"seed": int, "epochs": _NUMBER}
_COMPOSITION: Kinds = {"overrides": list, "options": dict, "interpolations": dict, "config": dict}


class UnreadableError(UsageError):
    """A file of a run is damaged; the message names it."""


def from_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: The text is damaged, nested too deeply, or contains huge numbers.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(value)
    return value


def from_yaml(text: str) -> Any:
    """Parse a YAML text of mappings, lists, strings, numbers, true, false and null.

    Raises:
        ValueError: The text is damaged, nested too deeply, or contains huge numbers, aliases (`*`) or objects (`!`).
    """
    try:
        depth = 0
        # Checked on libyaml's events, which take no memory: its constructor recurses without a limit, which ends the
        # process, and nested aliases expand to more than any memory holds.
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise ValueError("it is nested too deeply")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it repeats a part of itself, *{event.anchor}")
        value = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, TypeError) as error:  # a list as a key is a TypeError
        raise ValueError(str(error)) from None
    _check(value)
    return value


def check_kinds(content: Mapping[str, Any], kinds: Kinds) -> None:
    """Raise `ValueError` for the first value whose type is not of its name's kind; names may be missing."""
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if name in content and type(content[name]) not in allowed:
            words = " or ".join(one.__name__ for one in allowed)
            raise ValueError(f"{name} is of type {type(content[name]).__name__}, not {words}")


def _of_file(parse: Callable[[str], T]) -> Callable[[Path], T]:
    """Turn a parser of a file's text into a reader of its path.

    The reader raises `FileNotFoundError` if the file is missing, and `UnreadableError` if it is damaged.
    """

    @wraps(parse)
    def read(path: Path) -> T:
        try:
            return parse(fresh(lambda: path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, OSError) as error:
            raise _unreadable(path, error) from None

    return read


@_of_file
def read_status(text: str) -> dict[str, Any]:
    """Parse the content of `status.json`."""
    parsed = _checked(from_json(text), _STATUS)
    if not math.isfinite(parsed.get("heartbeat", 0)):
        raise ValueError(f"heartbeat is {parsed['heartbeat']}")
    for name in ("threads", "world_size"):
        if parsed.get(name, 1) < 1:
            raise ValueError(f"{name} is {parsed[name]}")
    return parsed


@_of_file
def read_result(text: str) -> dict[str, Any]:
    """Parse the content of `result.json`; `test/acc` is from 0 to 1."""
    result = _checked(from_json(text), RESULT_KINDS)
    if not 0 <= result.get("test/acc", math.nan) <= 1:
        raise ValueError(f"test/acc is {result.get('test/acc', 'missing')}, not from 0 to 1")
    return result


@_of_file
def read_config(text: str) -> dict[str, Any]:
    """Parse the content of `config.yaml`, with the current names of components that have moved."""

    def renamed(node: Any, key: object = None) -> Any:
        if isinstance(node, dict):
            return {key: renamed(value, key) for key, value in node.items()}
        if isinstance(node, list):
            return [renamed(value) for value in node]
        return current(node) if key == "_target_" and isinstance(node, str) else node

    return renamed(_checked(from_yaml(text), _CONFIG))


@_of_file
def read_composition(text: str) -> dict[str, Any]:
    """Parse the content of `composition.json`, which must have all four parts."""
    parsed = _checked(from_json(text), _COMPOSITION)
    options = [option for option in parsed["options"].values() if option is not None]
    words = {"overrides": parsed["overrides"], "options": options, "interpolations": parsed["interpolations"].values()}
    for part, content in words.items():
        if not all(isinstance(word, str) for word in content):
            raise ValueError(f"its {part} are not strings")
    _checked(parsed["config"], _CONFIG)
    return parsed


@_of_file
def read_metrics(text: str) -> "pd.DataFrame":
    """Parse `metrics.csv`: one row per epoch, the last of several; damaged rows are left out."""
    import pandas as pd

    try:
        table = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]), index_col=False, on_bad_lines="skip")
    except pd.errors.ParserError as error:
        raise ValueError(str(error)) from None
    if "epoch" not in table:
        raise ValueError("it has no column epoch")
    if any(dtype.kind not in "if" for dtype in table.dtypes):  # some cells are not numbers
        table = table[pd.to_numeric(table["epoch"], errors="coerce").notna()].apply(pd.to_numeric)
    if table["epoch"].dtype.kind == "i" and table["epoch"].is_unique:  # nearly always; the rest is slow
        return table
    table = table.dropna(subset=["epoch"]).astype({"epoch": int})
    return table.drop_duplicates("epoch", keep="last", ignore_index=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an `npz` file, by name.

    Raises:
        FileNotFoundError: The file does not exist.
        UnreadableError: The file is damaged.
    """
    try:
        # No arrays of objects, which numpy stores as pickles.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from None


def reason_of(error: Exception) -> str:
    """Return why a file of a run cannot be read: that it is missing, or the message of its `UnreadableError`."""
    return f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else str(error)


def _unreadable(path: Path, error: Exception) -> UnreadableError:
    reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return UnreadableError(f"{path} cannot be read: {' '.join(reason.split())}")


def _checked(content: Any, kinds: Kinds) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it is not a mapping")
    check_kinds(content, kinds)
    return content


def _check(value: Any, depth: int = 1) -> None:
    if depth > _DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        kinds = set(map(type, value))
        if len(kinds) > 1 or not kinds <= {str, int}:
            raise ValueError("its keys are not all strings or all integers")
        value = value.values()
    elif not isinstance(value, list):
        value = (value,)
    for element in value:  # one call per collection instead of per value: a table reads millions
        kind = type(element)
        if kind is dict or kind is list:
            _check(element, depth + 1)
        elif kind is int and abs(element) >= WHOLE_LIMIT:
            raise ValueError("it has a number of more than 63 bits")
        elif kind not in _KINDS:
            raise ValueError(f"it contains a {kind.__name__}")
