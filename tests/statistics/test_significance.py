import numpy as np
import pytest
from scipy import stats

from cifar_lab.statistics import significance
from cifar_lab.statistics.accuracies import newcombe_interval
from cifar_lab.statistics.paired import holm
from cifar_lab.statistics.significance import of_rows, of_seeds, stratified_exact


def test_a_prediction_interval_has_its_nominal_coverage() -> None:
    drawn = np.random.default_rng(0).normal(0.9, 0.01, (4000, 6))
    intervals = np.array([significance.prediction_interval(values[:5]) for values in drawn])
    inside = (intervals[:, 0] <= drawn[:, 5]) & (drawn[:, 5] <= intervals[:, 1])
    assert inside.mean() == pytest.approx(0.95, abs=0.012)


def test_a_prediction_interval_of_one_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\b1\b"):
        significance.prediction_interval(np.array([0.9]))


def test_noise_is_that_of_two_shares_for_one_run_and_the_prediction_interval_for_three() -> None:
    low, high = newcombe_interval((9000, 10_000), (8950, 10_000))
    assert significance.noise_interval(np.array([0.9]), 10_000, 0.895) == pytest.approx((0.895 + low, 0.895 + high))
    # By hand: t(0.975, 2) = 4.302653, times 0.01, times the square root of 4/3.
    half = 4.302653 * 0.01 * (4 / 3) ** 0.5
    found = significance.noise_interval(np.array([0.90, 0.91, 0.92]), 10_000, 0.895)
    assert found == pytest.approx((0.91 - half, 0.91 + half))


def test_one_in_twenty_rows_of_equal_true_accuracy_lies_outside_by_chance() -> None:
    drawn = np.random.default_rng(0).binomial(10_000, 0.89, (2000, 2)) / 10_000
    outside = [
        not low <= published <= high
        for published, measured in drawn
        for low, high in [significance.noise_interval(np.array([measured]), 10_000, published)]
    ]
    assert np.mean(outside) == pytest.approx(0.05, abs=0.015)  # 0.167 with our binomial interval alone


def test_rows_of_five_seeds_or_more_are_tested_with_a_correction_over_the_table() -> None:
    drawn = np.random.default_rng(2)
    rows = {"a": drawn.normal(0.9, 0.01, 5), **{name: drawn.normal(0.8, 0.01, 5) for name in "bd"}, "c": np.ones(4)}
    pairs = significance.differences(rows)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "d"), ("b", "d")]
    assert [pair.is_significant for pair in pairs] == [True, True, False]
    assert [pair.adjusted for pair in pairs] == pytest.approx(list(holm([pair.p for pair in pairs])))


def test_the_bootstrap_of_three_seeds_is_no_wider_than_their_range_and_of_many_is_the_normal_interval() -> None:
    assert significance.bootstrap_interval(np.array([1.0, 2.0, 6.0])) == (1.0, 6.0)
    drawn = np.random.default_rng(0).normal(size=400)
    low, high = significance.bootstrap_interval(drawn) or (np.nan, np.nan)
    half = 1.96 * drawn.std() / 20
    assert (low, high) == pytest.approx((drawn.mean() - half, drawn.mean() + half), abs=0.01)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, np.nan], [1.0, 2.0, np.inf]])
def test_two_seeds_and_values_with_nan_have_no_interval(values: list[float]) -> None:
    assert significance.bootstrap_interval(np.array(values)) is None
    assert significance.t_interval(np.array(values)) is None


def test_students_interval_of_three_seeds_contains_the_mean_in_95_percent_and_their_range_in_75() -> None:
    drawn = np.random.default_rng(0).normal(size=(20_000, 3))
    by_t = [significance.t_interval(values) or (np.nan, np.nan) for values in drawn[:4000]]
    assert np.mean([low < 0 < high for low, high in by_t]) == pytest.approx(0.95, abs=0.01)
    assert np.mean((drawn.min(1) < 0) & (drawn.max(1) > 0)) == pytest.approx(0.75, abs=0.01)


def test_a_difference_of_rows_uses_welchs_interval_and_a_mean_over_seeds_students() -> None:
    drawn = np.random.default_rng(0)
    first, second = drawn.normal(0.9, 0.01, 5), drawn.normal(0.89, 0.03, 7)
    tested, effect = stats.ttest_ind(first, second, equal_var=False), of_rows(first, second)
    assert effect.p(effect.mean) == pytest.approx(tested.pvalue)
    assert effect.interval == pytest.approx(tuple(tested.confidence_interval(0.95)))
    mean = of_seeds(first)
    assert mean.interval == pytest.approx(significance.t_interval(first))
    assert mean.p(mean.mean - 0.89) == pytest.approx(stats.ttest_1samp(first, 0.89).pvalue)


def test_an_interval_touches_a_bound_at_its_own_p() -> None:
    effect = of_seeds(np.array([0.1, 0.3, 0.2, 0.25]))
    assert effect.p(effect.mean - effect.interval[0]) == pytest.approx(0.05)


def test_rows_without_noise_are_equal_or_certainly_different() -> None:
    same = of_rows(np.full(5, 0.1), np.full(5, 0.1))
    assert (same.p(same.mean), same.p(0.005), same.interval) == (1.0, 0.0, (0.0, 0.0))


def test_the_exact_test_of_one_stratum_is_fishers_and_a_constant_stratum_adds_nothing() -> None:
    three = np.array([[[3, 0], [0, 3]]])
    assert stratified_exact(three) == pytest.approx(stats.fisher_exact(three[0]).pvalue)
    assert stratified_exact(np.concatenate([three, [[[3, 0], [3, 0]]]])) == pytest.approx(0.1)
    # By hand: both strata give 1/20 in one direction.
    assert stratified_exact(np.concatenate([three, three])) == pytest.approx(2 / 400)
