"""What decides a claim: verdicts on differences, and the command lines whose runs give them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cifar_lab.statistics.significance import SEEDS_FOR_TESTS, Difference

SUPPORTED, NOT_SUPPORTED, UNTESTED = "supported", "not supported", "untested"
NOT_MEASURED = "not measured: no run records it yet"
ALIKE = 0.005  # rows whose means surely differ by less are alike
WITHIN = (
    f"lies within ± {100 * ALIKE:g} points, even where Welch's test, corrected by Holm, tells the two apart; not "
    "supported if it tells two apart otherwise, else untested"
)

_TRAIN = "python -m cifar_lab.train"
_SEEDS = f"seed='range(0,{SEEDS_FOR_TESTS})'"


@dataclass(frozen=True)
class Claim:
    """A claim and what became of it.

    Attributes:
        words: The report's.
        decides: Which number decides, and how.
        numbers: What was measured.
        verdict: supported, not supported or untested.
        command: A command line whose runs decide; empty where there is nothing to run.
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
    """The command line of a study with what is typed beside it."""
    return " ".join((_TRAIN, f"study={study}", *typed))


def trains_options(study: str, options: Iterable[str], *typed: str) -> str:
    """The command line of some options of a study over as many seeds as tests need."""
    return trains_study(study, f"{study}={','.join(options)}", _SEEDS, *typed)


def turned(pair: Difference | None) -> Difference | None:
    """The same difference, the other way round."""
    if pair is None:
        return None
    low, high = pair.interval
    return Difference(pair.second, pair.first, -pair.mean, (-high, -low), pair.p, pair.adjusted)


def alike(pairs: Sequence[Difference | None]) -> str:
    """Supported where all surely differ by less than what counts, not supported where one surely differs otherwise."""
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return UNTESTED
    if all(pair.interval[0] >= -ALIKE and pair.interval[1] <= ALIKE for pair in known):
        return SUPPORTED
    return NOT_SUPPORTED if any(pair.is_significant for pair in known) else UNTESTED


def all_hold(pairs: Sequence[Difference | None], holds: Callable[[Difference], bool]) -> str:
    """Whether something holds of all differences; untested where one of them was not tested."""
    known = [pair for pair in pairs if pair is not None]
    return verdict(all(map(holds, known))) if len(known) == len(pairs) else UNTESTED


def is_above(pair: Difference) -> bool:
    """Whether the first row is surely above the second."""
    return pair.is_significant and pair.mean > 0


def verdict(holds: bool) -> str:
    """The verdict on a claim that was tested."""
    return SUPPORTED if holds else NOT_SUPPORTED
