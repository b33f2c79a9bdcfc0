"""The rule by which claims are decided, and the command lines whose runs decide them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from cifar_lab.statistics.paired import holm
from cifar_lab.statistics.power import seeds_needed
from cifar_lab.statistics.significance import SEEDS_FOR_INTERVALS, SEEDS_FOR_TESTS, Effect

VERDICTS = SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTED = "supported", "contradicted", "inconclusive", "untested"
NOT_MEASURED = "not measured: no run records it yet"
MARGIN = 0.005  # within which accuracies are equal
LEVEL, POWER = 0.05, 0.8
_MOST_SEEDS = 1000
RULE = (
    "A claim of a direction is supported if the 95 % interval of the difference is above 0, contradicted if it is "
    f"below. A claim of equality is supported if the interval is within ± {100 * MARGIN:g} points, or the claim's own "
    "margin, contradicted if it is outside. The intervals are corrected by Holm over all claims that have enough runs "
    f"for a test: p, two-sided, of the bound between the two verdicts must be below {LEVEL:g}. Of several conditions "
    "all must hold; the claim is contradicted if one is, corrected by Bonferroni over its conditions. Otherwise it is "
    "inconclusive, with the number of seeds a row that would tell if what was measured were true (power "
    f"{POWER:g}), and untested without runs."
)

_TRAIN = "python -m cifar_lab.train"


class Condition(NamedTuple):
    """A condition of a claim: a number and the bound that separates the two verdicts."""

    distance: float  # from the bound, positive where the condition holds
    p: float | None  # two-sided, of a true distance of 0; None with too few runs for a test
    # the number of seeds that would tell, by the level of the test; 0 if no number does
    seeds: Callable[[float], int] = lambda level: 0


UNKNOWN = Condition(np.nan, None)  # runs that cannot be compared, because one has diverged


def distance(effect: Effect, distance: float, least: int, times: int = 1, power: float = POWER) -> Condition:
    """An effect whose mean lies `distance` from a bound.

    Args:
        effect: Over seeds.
        distance: From the bound, positive where the condition holds.
        least: Number of seeds from which it is tested.
        times: Number of rows among which the one that is tested was chosen by its mean (Bonferroni).
        power: With which the number of seeds would tell.
    """

    def seeds(level: float) -> int:
        if effect.seeds < 2:
            return least
        is_zero, paired = abs(distance) < 1e-12, effect.is_paired
        return 0 if is_zero else max(least, seeds_needed(effect.deviation, distance, power, level / times, paired))

    return Condition(distance, min(1.0, times * effect.p(distance)) if effect.seeds >= least else None, seeds)


def above(effect: Effect, least: int = SEEDS_FOR_TESTS, times: int = 1) -> Condition:
    """A direction: above 0."""
    return distance(effect, effect.mean, least, times)


def alike(effect: Effect, margin: float = MARGIN) -> Condition:
    """Decide equality: within the margin, which is fixed before the runs.

    Equal rows may miss the margin on either side, so each side gets half of 1 - power (Julious 2004, Statistics in
    Medicine 23).
    """
    inside = margin - abs(effect.mean)
    return distance(effect, inside, SEEDS_FOR_TESTS, power=(1 + POWER) / 2 if inside > 0 else POWER)


def fact(holds: bool) -> Condition:
    """Decide by a number without noise."""
    return Condition(1.0 if holds else -1.0, 0.0)


@dataclass(frozen=True)
class Claim:
    """A claim of the report and its verdict."""

    words: str  # the report's
    decides: str  # which number decides, and how
    numbers: str  # the measured numbers
    # all of them must hold; None for a condition without runs
    conditions: Sequence[Condition | None] = field(repr=False, compare=False)
    command: str  # a command line whose runs decide, of so many seeds as would tell; empty if there is nothing to run
    verdict: str = UNTESTED  # one of `VERDICTS`
    note: str = ""  # p by Holm over all claims of a decided one, else the number of seeds that would tell; may be empty

    @property
    def p(self) -> float | None:
        """The smallest level at which the claim is decided, by itself; None with too few runs for a test."""
        known = [one for one in self.conditions if one is not None and one.p is not None]
        against = [one.p for one in known if one.p is not None and one.distance < 0]
        if against:
            return min(1.0, len(self.conditions) * min(against))
        return max(one.p or 0.0 for one in known) if known and len(known) == len(self.conditions) else None


def judged(claims: Sequence[Claim]) -> list[Claim]:
    """Give all claims their verdicts, by `RULE`."""
    tested = [claim for claim in claims if claim.p is not None]
    corrected = dict(zip((claim.words for claim in tested), holm([claim.p or 0.0 for claim in tested]), strict=True))
    undecided = sum(p >= LEVEL for p in corrected.values())
    return [_judged(claim, corrected.get(claim.words), undecided) for claim in claims]


def _judged(claim: Claim, p: float | None, undecided: int) -> Claim:
    if not any(claim.conditions):
        return claim
    if p is not None and p < LEVEL:
        holds = all(one is not None and one.distance > 0 for one in claim.conditions)
        note = f"p {p:.2g} by Holm" if p else ""
        return replace(claim, verdict=SUPPORTED if holds else CONTRADICTED, note=note)
    level = LEVEL / max(undecided + (p is None), 1)
    known = [one for one in claim.conditions if one is not None]
    against = [one.seeds(level / len(claim.conditions)) for one in known if one.distance < 0]
    each = [one.seeds(level) for one in known]
    seeds = min(against) if against else max(each) * all(each)
    if not 0 < seeds <= _MOST_SEEDS:
        return replace(claim, verdict=INCONCLUSIVE, note=f"more than {_MOST_SEEDS:,} seeds would tell" if seeds else "")
    note = f"{'at least ' * (p is None)}{seeds} seeds would tell"
    command = re.sub(r"range\(0,\d+\)", f"range(0,{seeds})", claim.command)
    return replace(claim, verdict=INCONCLUSIVE, note=note, command=command)


def trains_rows(experiments: Iterable[str], protocol: str) -> str:
    """The command line that trains rows of the report over as many seeds as tests need."""
    return f"{_TRAIN} -m experiment={','.join(experiments)} seed='range(0,{SEEDS_FOR_TESTS})' protocol={protocol}"


def trains_study(study: str, *typed: str, seeds: int = SEEDS_FOR_INTERVALS) -> str:
    """The command line of a study over some seeds, with other arguments."""
    return " ".join((_TRAIN, f"study={study}", *typed, f"seed='range(0,{seeds})'"))


def trains_options(study: str, options: Iterable[str], *typed: str) -> str:
    """The command line of some options of a study over as many seeds as tests need."""
    return trains_study(study, f"{study}={','.join(options)}", *typed, seeds=SEEDS_FOR_TESTS)
