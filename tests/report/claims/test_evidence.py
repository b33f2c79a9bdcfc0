"""The one rule that decides claims."""

from collections import Counter

import numpy as np
import pytest

from cifar_lab.report.claims.evidence import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    UNKNOWN,
    UNTESTED,
    Claim,
    Condition,
    above,
    alike,
    fact,
    judged,
)
from cifar_lab.statistics.power import seeds_needed
from cifar_lab.statistics.significance import of_rows


def claim(*conditions: Condition | None, words: str = "") -> Claim:
    return Claim(words, "", "", conditions, "train seed='range(0,5)'")


def verdict(*conditions: Condition | None) -> str:
    return judged([claim(*conditions)])[0].verdict


def rows(difference: float, deviation: float, seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return two rows of accuracies with exactly this difference and standard deviation."""
    spread = np.linspace(-1, 1, seeds)
    row = 0.9 + deviation * spread / spread.std(ddof=1)
    return row + difference, row


@pytest.mark.parametrize(
    ("difference", "direction", "equality"),
    [
        (0.02, SUPPORTED, CONTRADICTED),
        (-0.02, CONTRADICTED, CONTRADICTED),
        (0.0, INCONCLUSIVE, SUPPORTED),
        (0.0025, INCONCLUSIVE, INCONCLUSIVE),
        (0.0045, SUPPORTED, INCONCLUSIVE),
    ],
)
def test_an_interval_on_one_side_of_the_bound_decides_and_one_that_contains_it_does_not(
    difference: float, direction: str, equality: str
) -> None:
    effect = of_rows(*rows(difference, 0.002))
    assert (verdict(above(effect)), verdict(alike(effect))) == (direction, equality)
    low, high = effect.interval
    assert (low > 0, high < 0) == (direction == SUPPORTED, direction == CONTRADICTED)
    assert (max(-low, high) < 0.005, low > 0.005 or high < -0.005) == (equality == SUPPORTED, equality == CONTRADICTED)


def test_a_true_difference_is_never_contradicted_and_equal_rows_differ_in_one_of_twenty_cases() -> None:
    drawn = np.random.default_rng(0).normal(0.89, 0.003, (500, 2, 5))
    told = Counter(verdict(above(of_rows(first + 0.005, second))) for first, second in drawn)
    assert told[SUPPORTED] / 500 == pytest.approx(0.62, abs=0.07)
    assert told[CONTRADICTED] == told[UNTESTED] == 0
    told = Counter(verdict(above(of_rows(*both))) for both in drawn)
    assert told[INCONCLUSIVE] / 500 == pytest.approx(0.95, abs=0.03)


def test_an_inconclusive_claim_names_the_number_of_seeds_that_would_decide() -> None:
    (told,) = judged([claim(above(of_rows(*rows(0.002, 0.002))))])
    assert (told.verdict, told.note) == (INCONCLUSIVE, f"{seeds_needed(0.002, 0.002)} seeds needed")
    assert told.command == f"train seed='range(0,{seeds_needed(0.002, 0.002)})'"
    (single,) = judged([claim(above(of_rows(np.array([0.9]), np.array([0.8]))))])
    assert (single.verdict, single.note) == (INCONCLUSIVE, "at least 5 seeds needed")
    (none,) = judged([claim(above(of_rows(*rows(0.0, 0.002))))])
    assert (none.verdict, none.note) == (INCONCLUSIVE, "")
    (many,) = judged([claim(above(of_rows(*rows(0.00001, 0.002))))])
    assert many.note == "more than 1,000 seeds needed"


def test_the_named_number_of_seeds_shows_equal_rows_to_be_equal() -> None:
    (told,) = judged([claim(alike(of_rows(*rows(0.0, 0.004))))])
    assert told.verdict == INCONCLUSIVE
    seeds = int(told.note.split()[0])
    drawn = np.random.default_rng(0)

    def supported(number: int) -> float:
        draws = drawn.normal(0.89, 0.004, (1000, 2, number))
        return float(np.mean([verdict(alike(of_rows(*both))) == SUPPORTED for both in draws]))

    assert supported(seeds) == pytest.approx(0.82, abs=0.05)
    assert supported(seeds - 2) < 0.8


def test_holms_correction_covers_all_tested_claims() -> None:
    effect = of_rows(*rows(0.004, 0.002))
    p = effect.p(effect.mean)
    assert 0.05 / 5 < p < 0.05
    undecided = [claim(above(of_rows(*rows(0.0, 0.002))), words=str(number)) for number in range(4)]
    assert judged([claim(above(effect), words="a")])[0].verdict == SUPPORTED
    assert judged([claim(above(effect), words="a"), *undecided])[0].verdict == INCONCLUSIVE
    untested = [claim(None, words=str(number)) for number in range(4)]
    assert [one.verdict for one in judged([claim(above(effect), words="a"), *untested])] == [SUPPORTED, *[UNTESTED] * 4]


def test_all_conditions_must_hold_and_a_single_failure_contradicts() -> None:
    holds, fails, unsure = (above(of_rows(*rows(difference, 0.002))) for difference in (0.02, -0.02, 0.001))
    assert verdict(holds, holds) == SUPPORTED
    assert verdict(holds, unsure) == INCONCLUSIVE
    assert verdict(holds, fails) == verdict(None, fails) == verdict(UNKNOWN, fails) == CONTRADICTED
    assert verdict(holds, None) == verdict(holds, UNKNOWN) == verdict(UNKNOWN) == INCONCLUSIVE
    assert verdict(None, None) == UNTESTED
    assert (verdict(fact(True)), verdict(fact(False))) == (SUPPORTED, CONTRADICTED)
