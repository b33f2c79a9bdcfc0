"""Pairs of values that contradict each other, found without composing all jobs of a sweep."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cifar_lab.config import checks

_Change = list[tuple[tuple[str, ...], Any]]
_GONE = object()


def contradictions(
    axes: Sequence[Sequence[str]], plain: Mapping[tuple[str, ...], dict[str, Any]]
) -> Iterator[list[str]]:
    """The jobs that differ from the first along two axes, and whose settings make no sense together.

    Each value's changes to the first job are taken from the job that differs in that value alone, and both values'
    changes are applied together. Composing may give something else if one option replaces what the other sets, so the
    caller composes the pairs that are yielded.

    Args:
        axes: The words of each axis.
        plain: What the first job and its neighbours along one axis compose, by their words.
    """
    first = [axis[0] for axis in axes]
    base = plain[tuple(first)]

    def changed(number: int, word: str) -> _Change:
        return _changes(base, plain.get((*first[:number], word, *first[number + 1 :]), base))

    changes = [{word: changed(number, word) for word in dict.fromkeys(axis[1:])} for number, axis in enumerate(axes)]
    for (one, of_one), (other, of_other) in itertools.combinations(enumerate(changes), 2):
        for (word, change), (another, further) in itertools.product(of_one.items(), of_other.items()):
            try:
                checks.check_together(_applied(base, [*change, *further]))
            except ValueError:
                words = list(first)
                words[one], words[other] = word, another
                yield words


def _changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> _Change:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [(path, after)]
    found: _Change = [((*path, key), _GONE) for key in before.keys() - after.keys()]
    for key, value in after.items():
        found += _changes(before[key], value, (*path, key)) if key in before else [((*path, key), value)]
    return found


def _applied(base: Mapping[str, Any], changes: _Change) -> dict[str, Any]:
    config = dict(base)
    for group in {path[0] for path, _ in changes}:
        config[group] = copy.deepcopy(base.get(group))
    for path, value in changes:
        node: Any = config
        for key in path[:-1]:
            if not isinstance(node.get(key), dict):  # the other change has replaced the group
                node[key] = {}
            node = node[key]
        if value is _GONE:
            node.pop(path[-1], None)
        else:
            node[path[-1]] = value
    return config
