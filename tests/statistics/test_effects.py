import numpy as np
import pytest
from scipy import stats

from cifar_lab.statistics.effects import of_rows, of_seeds, stratified_exact
from cifar_lab.statistics.significance import t_interval


def test_a_difference_of_rows_is_welchs_and_a_mean_over_seeds_students() -> None:
    drawn = np.random.default_rng(0)
    first, second = drawn.normal(0.9, 0.01, 5), drawn.normal(0.89, 0.03, 7)
    tested, effect = stats.ttest_ind(first, second, equal_var=False), of_rows(first, second)
    assert effect.p(effect.mean) == pytest.approx(tested.pvalue)
    assert effect.interval == pytest.approx(tuple(tested.confidence_interval(0.95)))
    mean = of_seeds(first)
    assert mean.interval == pytest.approx(t_interval(first))
    assert mean.p(mean.mean - 0.89) == pytest.approx(stats.ttest_1samp(first, 0.89).pvalue)


def test_an_interval_touches_a_bound_at_its_own_p() -> None:
    effect = of_seeds(np.array([0.1, 0.3, 0.2, 0.25]))
    assert effect.p(effect.mean - effect.interval[0]) == pytest.approx(0.05)


def test_rows_without_noise_are_equal_or_surely_not() -> None:
    same = of_rows(np.full(5, 0.1), np.full(5, 0.1))
    assert (same.p(same.mean), same.p(0.005), same.interval) == (1.0, 0.0, (0.0, 0.0))


def test_the_exact_test_of_one_stratum_is_fishers_and_a_stratum_where_all_are_alike_adds_nothing() -> None:
    three = np.array([[[3, 0], [0, 3]]])
    assert stratified_exact(three) == pytest.approx(stats.fisher_exact(three[0]).pvalue)
    assert stratified_exact(np.concatenate([three, [[[3, 0], [3, 0]]]])) == pytest.approx(0.1)
    # By hand: both strata give 1/20 in one direction.
    assert stratified_exact(np.concatenate([three, three])) == pytest.approx(2 / 400)
