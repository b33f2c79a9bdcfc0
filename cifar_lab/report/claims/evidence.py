"""The rule that decides claims, and the commands whose runs decide them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from cifar_lab.statistics.paired import holm
from cifar_lab.statistics.power import seeds_needed
from cifar_lab.statistics.significance import SEEDS_FOR_INTERVALS, SEEDS_FOR_TESTS, Effect

VERDICTS = SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTED = "supported", "contradicted", "inconclusive", "untested"
NOT_MEASURED = "not measured: no run records it"
MARGIN = 0.005  # accuracies within it count as equal
LEVEL, POWER = 0.05, 0.8
_MOST_SEEDS = 1000
RULE = (
    "A claim of a direction is supported if the 95 % interval of the difference is above 0, and contradicted if it is "
    f"below. A claim of equality is supported if the interval is within ± {100 * MARGIN:g} points, or the claim's own "
    "margin, and contradicted if it is outside. Intervals are corrected by Holm over all claims with enough runs for a "
    f"test: the two-sided p at the bound between the two verdicts must be below {LEVEL:g}. A claim with several "
    "conditions needs all of them; it is contradicted if one fails, corrected by Bonferroni over its conditions. "
    "Otherwise it is inconclusive, with the number of seeds per row needed if the measured effect is the true one "
    f"(power {POWER:g}), or untested without runs."
)

_TRAIN = "python -m cifar_lab.train"


class Condition(NamedTuple):
    """A condition of a claim: the distance of a number from the bound between the two verdicts."""

    distance: float  # positive if the condition holds
    p: float | None  # two-sided p of a true distance of 0; None with too few runs for a test
    # number of seeds needed at a level of the test; 0 if no number suffices
    seeds: Callable[[float], int] = lambda level: 0


UNKNOWN = Condition(np.nan, None)  # for runs that are not compared, for example because one has diverged


def distance(effect: Effect, distance: float, least: int, times: int = 1, power: float = POWER) -> Condition:
    """Make the condition that the mean of an effect is on the right side of a bound.

    Args:
        effect: Effect over seeds.
        distance: Distance of the mean from the bound, positive if the condition holds.
        least: Smallest number of seeds for a test.
        times: Number of rows from which the tested one was chosen by its mean (Bonferroni).
        power: Power for the number of seeds needed.
    """

    def seeds(level: float) -> int:
        if effect.seeds < 2:
            return least
        is_zero, paired = abs(distance) < 1e-12, effect.is_paired
        return 0 if is_zero else max(least, seeds_needed(effect.deviation, distance, power, level / times, paired))

    return Condition(distance, min(1.0, times * effect.p(distance)) if effect.seeds >= least else None, seeds)


def above(effect: Effect, least: int = SEEDS_FOR_TESTS, times: int = 1) -> Condition:
    """Make the condition that the effect is above 0."""
    return distance(effect, effect.mean, least, times)


def alike(effect: Effect, margin: float = MARGIN) -> Condition:
    """Make the condition that the effect is within ± `margin`, which is fixed before the runs.

    Equal rows can miss the margin on both sides, so each side gets half of 1 - power (Julious 2004, Statistics in
    Medicine 23).
    """
    inside = margin - abs(effect.mean)
    return distance(effect, inside, SEEDS_FOR_TESTS, power=(1 + POWER) / 2 if inside > 0 else POWER)


def fact(holds: bool) -> Condition:
    """Make a condition on a number without noise."""
    return Condition(1.0 if holds else -1.0, 0.0)


@dataclass(frozen=True)
class Claim:
    """A claim of the report and its verdict."""

    words: str  # text of the claim
    decides: str  # the deciding number and its criterion
    numbers: str  # measured numbers
    # all must hold; None for a condition without runs
    conditions: Sequence[Condition | None] = field(repr=False, compare=False)
    command: str  # command whose runs decide, with the number of seeds needed; empty if there is nothing to run
    verdict: str = UNTESTED  # one of `VERDICTS`
    note: str = ""  # p by Holm over all claims if decided, else the number of seeds needed; may be empty

    @property
    def p(self) -> float | None:
        """Smallest level at which the claim alone is decided; None with too few runs for a test."""
        known = [one for one in self.conditions if one is not None and one.p is not None]
        against = [one.p for one in known if one.p is not None and one.distance < 0]
        if against:
            return min(1.0, len(self.conditions) * min(against))
        return max(one.p or 0.0 for one in known) if known and len(known) == len(self.conditions) else None


def judged(claims: Sequence[Claim]) -> list[Claim]:
    """Return all claims with their verdicts by `RULE`."""
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
        return replace(claim, verdict=INCONCLUSIVE, note=f"more than {_MOST_SEEDS:,} seeds needed" if seeds else "")
    note = f"{'at least ' * (p is None)}{seeds} seeds needed"
    command = re.sub(r"range\(0,\d+\)", f"range(0,{seeds})", claim.command)
    return replace(claim, verdict=INCONCLUSIVE, note=note, command=command)


def trains_rows(experiments: Iterable[str], protocol: str) -> str:
    """Return the command that trains rows of the report over as many seeds as tests need."""
    return f"{_TRAIN} -m experiment={','.join(experiments)} seed='range(0,{SEEDS_FOR_TESTS})' protocol={protocol}"


def trains_study(study: str, *typed: str, seeds: int = SEEDS_FOR_INTERVALS) -> str:
    """Return the command of a study over `seeds` seeds, with further arguments."""
    return " ".join((_TRAIN, f"study={study}", *typed, f"seed='range(0,{seeds})'"))


def trains_options(study: str, options: Iterable[str], *typed: str) -> str:
    """Return the command of some options of a study over as many seeds as tests need."""
    return trains_study(study, f"{study}={','.join(options)}", *typed, seeds=SEEDS_FOR_TESTS)
