import pytest

from cifar_lab.analysis.statistics import wilson_interval


def test_wilson_interval_is_the_formula_worked_by_hand() -> None:
    z, p, n = 1.959964, 0.9, 100
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert wilson_interval(90, 100) == pytest.approx((centre - half, centre + half), rel=1e-5)


def test_wilson_interval_stays_between_0_and_1() -> None:
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == 1


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="k"):
        wilson_interval(11, 10)
