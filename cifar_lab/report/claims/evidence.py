"""Verdicts on claims from differences, and the command lines whose runs give them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cifar_lab.statistics.significance import SEEDS_FOR_TESTS, Difference

SUPPORTED, NOT_SUPPORTED, UNTESTED = "supported", "not supported", "untested"
NOT_MEASURED = "not measured: no run records it yet"
ALIKE = 0.005  # the margin within which rows are alike
WITHIN = (
    f"lies within ± {100 * ALIKE:g} points, even where Welch's test, corrected by Holm, tells the two apart; not "
    "supported if it tells two apart otherwise, else untested"
)

_TRAIN = "python -m cifar_lab.train"
_SEEDS = f"seed='range(0,{SEEDS_FOR_TESTS})'"


@dataclass(frozen=True)
class Claim:
    """A claim of the report and its verdict.

    Attributes:
        words: The report's.
        decides: Which number decides, and how.
        numbers: What was measured.
        verdict: supported, not supported or untested.
        command: A command line whose runs decide; empty if there is nothing to run.
    """

    words: str
    decides: str
    numbers: str
    verdict: str
    command: str


def trains_rows(experiments: Iterable[str], protocol: str) -> str:
    """The command line that trains rows of the report over as many seeds as tests need."""
    return f"{_TRAIN} -m experiment={','.join(experiments)} {_SEEDS} protocol={protocol}"


def trains_study(study: str, *typed: str) -> str:
    """The command line of a study, with other arguments."""
    return " ".join((_TRAIN, f"study={study}", *typed))


def trains_options(study: str, options: Iterable[str], *typed: str) -> str:
    """The command line of some options of a study over as many seeds as tests need."""
    return trains_study(study, f"{study}={','.join(options)}", _SEEDS, *typed)


def alike(pairs: Sequence[Difference | None]) -> str:
    """Supported if every 95 % interval lies within the margin, else not supported if a difference is significant."""
    within = all_hold(pairs, lambda pair: max(-pair.interval[0], pair.interval[1]) <= ALIKE)
    is_told_apart = any(pair.is_significant for pair in pairs if pair is not None)
    return UNTESTED if within == NOT_SUPPORTED and not is_told_apart else within


def all_hold(pairs: Sequence[Difference | None], holds: Callable[[Difference], bool]) -> str:
    """Whether something holds for all differences; untested if one of them was not tested."""
    return UNTESTED if None in pairs else verdict(all(holds(pair) for pair in pairs if pair is not None))


def is_above(pair: Difference) -> bool:
    """Whether the first row is significantly above the second."""
    return pair.is_significant and pair.mean > 0


def verdict(holds: bool) -> str:
    """The verdict on a claim that was tested."""
    return SUPPORTED if holds else NOT_SUPPORTED
