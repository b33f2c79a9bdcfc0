import numpy as np
import pytest

from cifar_lab.statistics.power import seeds_needed
from cifar_lab.statistics.significance import of_rows, of_seeds


def test_numbers_of_seeds_equal_cohens_tables() -> None:
    # Cohen 1988, table 2.4.1: d = 0.5 and 0.8 at power 0.8. One mean: G*Power.
    assert [seeds_needed(1, difference) for difference in (0.5, -0.8)] == [64, 26]
    assert seeds_needed(1, 0.5, paired=True) == 34
    assert seeds_needed(0, 0.1) == 2


@pytest.mark.parametrize("paired", [False, True])
def test_the_computed_number_of_seeds_has_a_power_of_four_fifths_and_one_fewer_has_less(paired: bool) -> None:
    seeds = seeds_needed(0.3, 0.5, paired=paired)
    drawn = np.random.default_rng(0)

    def power(number: int) -> float:
        rows = drawn.normal([0.5, 0.0], 0.3, (4000, number, 2))
        found = [of_seeds(row[:, 0]) if paired else of_rows(*row.T) for row in rows]
        return float(np.mean([one.interval[0] > 0 for one in found]))

    assert power(seeds) > 0.8 - 0.015
    assert power(seeds - 1) < 0.8 + 0.015


@pytest.mark.parametrize(("deviation", "difference"), [(0.3, 0.0), (float("nan"), 0.1), (-1.0, 0.1)])
def test_a_difference_that_no_number_of_seeds_shows_is_refused(deviation: float, difference: float) -> None:
    with pytest.raises(ValueError, match=str(deviation)):
        seeds_needed(deviation, difference)
