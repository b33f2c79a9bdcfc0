"""Plain values of bounded depth and size from the text of files, whoever wrote it."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

_DEPTH = 50
WHOLE_LIMIT = 2**63  # from here on whole numbers fit neither numpy nor torch nor, further on, a float
_KINDS = (bool, int, float, str, type(None))


def from_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is damaged, nested deeply, or holds huge numbers.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(value)
    return value


def from_yaml(text: str) -> Any:
    """The value of a YAML text of mappings, lists, texts, numbers, true, false and null.

    Raises:
        ValueError: It is damaged, nested deeply, or holds huge numbers, repetitions by `*`, or objects by `!`.
    """
    try:
        depth = 0
        # Checked on libyaml's events, which take no memory: its constructor recurses without a limit, which ends the
        # process, and repetitions of repetitions unfold to more than any memory holds.
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


def check_kinds(content: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raise `ValueError` for the first value of another kind than its name's; names may be missing."""
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if name in content and type(content[name]) not in allowed:
            words = " or ".join(one.__name__ for one in allowed)
            raise ValueError(f"{name} is of type {type(content[name]).__name__}, not {words}")


def _check(value: Any, depth: int = 1) -> None:
    if depth > _DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        kinds = set(map(type, value))
        if len(kinds) > 1 or not kinds <= {str, int}:
            raise ValueError("its keys are no words")
        value = value.values()
    elif not isinstance(value, list):
        value = (value,)
    for element in value:  # a call for each collection, not for each value: one table reads millions
        kind = type(element)
        if kind is dict or kind is list:
            _check(element, depth + 1)
        elif kind is int and abs(element) >= WHOLE_LIMIT:
            raise ValueError("it holds a number of more than 63 bits")
        elif kind not in _KINDS:
            raise ValueError(f"it holds a {kind.__name__}")
