"""The values that a command line gives each key, and the jobs of a sweep over them."""

import itertools
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Override, RangeSweep

from cifar_lab.machine.exit_codes import UsageError

_MAX_JOBS = 10_000
_LONG_RANGE = 50  # composing each value takes about a tenth of a second


def values(override: Override) -> list[str]:
    """A word of the command line for each value of an override, `key=value`.

    Raises:
        ValueError: They are more than a sweep takes.
    """
    if not override.is_sweep_override():
        return [override.input_line or ""]
    sweep = override.value()
    if isinstance(sweep, RangeSweep):  # counted first, as Hydra shuffles a range by making a list of all of it
        check_jobs(sum(1 for _ in itertools.islice(sweep.range(), _MAX_JOBS + 1)), str(override.input_line))
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def axes_of(overrides: Sequence[Override]) -> list[list[str]]:
    """The words of each key of a sweep, one for each of its values; of a key that is given twice the last counts."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key, is_swept = override.get_key_element(), override.is_sweep_override()
        axes[key] = values(override) if is_swept else [f"{key}={override.get_value_element_as_str()}"]
    return list(axes.values())


def check_jobs(number: int, of: str) -> None:
    """Refuse more jobs than a sweep takes.

    Raises:
        ValueError: There are more.
    """
    if number > _MAX_JOBS:
        raise UsageError(f"{of} is more than {_MAX_JOBS:,} jobs; a sweep takes that many at most")


def ends(axes: Sequence[Sequence[str]], overrides: Sequence[Override]) -> list[list[str]]:
    """The axes, each long range reduced to its two ends, which stand for the values between them."""
    ranges = {override.get_key_element() for override in overrides if isinstance(override.value(), RangeSweep)}
    return [
        [axis[0], axis[-1]] if len(axis) > _LONG_RANGE and axis[0].partition("=")[0] in ranges else list(axis)
        for axis in axes
    ]


def around(axes: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The first of every axis, and for each further one of each axis the same with that."""
    first = [axis[0] for axis in axes]
    yield first
    for number, axis in enumerate(axes):
        for line in dict.fromkeys(axis[1:]):
            yield [*first[:number], line, *first[number + 1 :]]
