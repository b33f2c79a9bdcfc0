"""Values of each key on a command line, the jobs of a sweep over them, and the jobs that a check may refuse."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep

from cifar_lab.machine.exit_codes import UsageError

_Change = list[tuple[tuple[str, ...], Any]]
_GONE = object()
_MAX_JOBS = 10_000
_LONG_RANGE = 50  # composing one value takes about 0.1 s


def values(override: Override) -> list[str]:
    """Return an override as one `key=value` word per value; raise `UsageError` for a range of over 10,000 values."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    sweep = override.value()
    if isinstance(sweep, RangeSweep):  # count first: Hydra lists all values of a range to shuffle it
        check_jobs(sum(1 for _ in itertools.islice(sweep.range(), _MAX_JOBS + 1)), str(override.input_line))
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def axes_of(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the words of each key, one per value; if a key is given twice, the last one counts."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key, is_swept = override.get_key_element(), override.is_sweep_override()
        axes[key] = values(override) if is_swept else [f"{key}={override.get_value_element_as_str()}"]
    return list(axes.values())


def check_jobs(number: int, of: str) -> None:
    """Raise `UsageError` for more than 10,000 jobs."""
    if number > _MAX_JOBS:
        raise UsageError(f"{of} makes more than {_MAX_JOBS:,} jobs, the limit of a sweep")


def ends(axes: Sequence[Sequence[str]], overrides: Sequence[Override]) -> list[list[str]]:
    """Return the axes, with each range of more than 50 values reduced to its first and last value."""
    ranges = {override.get_key_element() for override in overrides if isinstance(override.value(), RangeSweep)}
    return [
        [axis[0], axis[-1]] if len(axis) > _LONG_RANGE and axis[0].partition("=")[0] in ranges else list(axis)
        for axis in axes
    ]


def around(axes: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield the job of all first values, then each job that differs from it along one axis."""
    first = [axis[0] for axis in axes]
    yield first
    for number, axis in enumerate(axes):
        for line in dict.fromkeys(axis[1:]):
            yield [*first[:number], line, *first[number + 1 :]]


def suspects(
    axes: Sequence[Sequence[str]], composed: Mapping[tuple[str, ...], dict[str, Any]], check: Callable[[Any], object]
) -> Iterator[list[str]]:
    """Yield the jobs that differ from the first along at least two axes and that `check` refuses.

    The changes of each value are taken from the job that differs in that value alone, and a job applies all its
    changes. Composing may give a different result if one option replaces settings of another, so the caller composes
    the yielded jobs. Only the first seed is checked, because nothing depends on the seed.

    Args:
        axes: The words of each axis.
        composed: The first job and those that differ from it along one axis, in plain values, keyed by their words.
        check: Called with a job in the same form; raises if the job is not valid.
    """
    first = [axis[0] for axis in axes]
    base = composed[tuple(first)]
    changes = [
        {word: _changes(base, composed[*first[:number], word, *first[number + 1 :]]) for word in axis}
        for number, axis in enumerate(axes)
    ]
    varied = [axis[:1] if axis[0].partition("=")[0].endswith("seed") else list(dict.fromkeys(axis)) for axis in axes]
    for words in itertools.product(*varied):
        if words in composed:
            continue
        together = [change for number, word in enumerate(words) for change in changes[number][word]]
        try:
            check(_applied(base, together))
        except Exception:  # a combination that composing never gives may raise anything
            yield list(words)


def _changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> _Change:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [(path, after)]
    changes: _Change = [((*path, key), _GONE) for key in before.keys() - after.keys()]
    for key, value in after.items():
        changes += _changes(before[key], value, (*path, key)) if key in before else [((*path, key), value)]
    return changes


def _applied(base: dict[str, Any], changes: _Change) -> dict[str, Any]:
    """Return a copy with the changes, which shares the unchanged parts with `base`."""
    config, copied = dict(base), set[tuple[str, ...]]()
    for path, value in changes:
        node: Any = config
        for depth, key in enumerate(path[:-1], start=1):
            if path[:depth] not in copied:
                below = node.get(key)
                node[key] = dict(below) if isinstance(below, dict) else {}  # {} if another change replaced it
                copied.add(path[:depth])
            node = node[key]
        if value is _GONE:
            node.pop(path[-1], None)
        else:
            node[path[-1]] = copy.deepcopy(value)
    return config
