import numpy as np
import pytest

from cifar_lab.statistics.accuracies import accuracy_interval, newcombe_interval, wilson_interval


def test_wilsons_interval_equals_the_formula_worked_by_hand() -> None:
    z, p, n = 1.959964, 0.9, 100
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert wilson_interval(90, 100) == pytest.approx((centre - half, centre + half), rel=1e-5)


def test_wilsons_interval_stays_between_0_and_1_and_refuses_impossible_counts() -> None:
    assert (wilson_interval(0, 10)[0], wilson_interval(10, 10)[1]) == (0, 1)
    with pytest.raises(ValueError, match=r"\b11 of 10\b"):
        wilson_interval(11, 10)


@pytest.mark.parametrize(
    ("first", "second", "interval"),  # Newcombe 1998, table II, method 10, with its four digits
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_newcombes_interval_equals_his_own_examples(
    first: tuple[int, int], second: tuple[int, int], interval: tuple[float, float]
) -> None:
    assert newcombe_interval(first, second) == pytest.approx(interval, abs=5e-5)
    assert newcombe_interval(second, first) == pytest.approx((-interval[1], -interval[0]), abs=5e-5)


def test_the_interval_over_three_or_more_seeds_is_students() -> None:
    # By hand: mean 0.5, standard deviation 0.01, standard error 0.01 / sqrt(3), and t(0.975, 2) = 4.302653.
    low, high = accuracy_interval(np.array([0.49, 0.50, 0.51]), 10_000)
    assert (low, high) == pytest.approx((0.5 - 0.0248414, 0.5 + 0.0248414), abs=1e-6)


def test_the_interval_of_one_or_two_runs_spans_their_binomial_intervals() -> None:
    assert accuracy_interval(np.array([0.5]), 10_000) == wilson_interval(5_000, 10_000)
    low, high = wilson_interval(4_000, 10_000)[0], wilson_interval(6_000, 10_000)[1]
    assert accuracy_interval(np.array([0.6, 0.4]), 10_000) == (low, high)


def test_the_interval_stays_within_the_range_of_accuracies() -> None:
    assert accuracy_interval(np.array([0.1, 0.1, 0.4]), 20)[0] == 0.0
    assert accuracy_interval(np.array([0.99, 0.999, 0.97]), 10_000)[1] == 1.0
