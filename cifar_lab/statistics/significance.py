"""Confidence intervals and tests of means over seeds and of their differences."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cifar_lab.statistics.accuracies import Interval, newcombe_interval
from cifar_lab.statistics.paired import holm

SEEDS_FOR_INTERVALS = 3
SEEDS_FOR_TESTS = 5


class Effect(NamedTuple):
    """Mean over seeds, or difference of the means of two rows."""

    mean: float  # point estimate
    error: float  # standard error of the mean; NaN for one seed
    freedom: float  # degrees of freedom of the t-statistic
    deviation: float  # standard deviation between seeds; for two rows, the root mean square of both
    seeds: int  # number of seeds; for two rows, the smaller one
    is_paired: bool  # whether it is the mean of one row, such as paired differences, instead of a difference of two

    @property
    def interval(self) -> Interval:
        """The 95 % confidence interval."""
        half = float(stats.t.ppf(0.975, self.freedom)) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    def p(self, distance: float) -> float:
        """Two-sided p-value of a bound at `distance`: 1 - c for the confidence c whose interval ends there."""
        if self.error < 1e-12:  # no variation, for which the test is undefined
            return float(abs(distance) < 1e-12)
        return 2 * float(stats.t.sf(abs(distance) / self.error, self.freedom))


def of_rows(first: np.ndarray, second: np.ndarray) -> Effect:
    """Return the difference of the means of `(n,)` and `(m,)`, both at least 1 (Welch 1947, Biometrika 34)."""
    mean, seeds = float(first.mean() - second.mean()), min(len(first), len(second))
    if seeds < 2:
        return Effect(mean, np.nan, np.nan, np.nan, seeds, is_paired=False)
    variances = np.array([first.var(ddof=1), second.var(ddof=1)])
    shares, numbers = variances / (len(first), len(second)), np.array([len(first), len(second)])
    total = float(shares.sum())
    freedom = total**2 / float((shares**2 / (numbers - 1)).sum()) if total else np.inf
    return Effect(mean, total**0.5, freedom, float(variances.mean()) ** 0.5, seeds, is_paired=False)


def of_seeds(values: np.ndarray) -> Effect:
    """Return the mean of `(n,)`, n at least 1, such as paired differences (Student 1908, Biometrika 6)."""
    number = len(values)
    deviation = float(values.std(ddof=1)) if number > 1 else np.nan
    return Effect(float(values.mean()), deviation / number**0.5, number - 1, deviation, number, is_paired=True)


def stratified_exact(tables: np.ndarray) -> float:
    """Return the two-sided exact p-value for equal proportions in two arms, stratified (Mantel-Haenszel).

    The exact test conditional on the margins of every stratum (Agresti, "Categorical Data Analysis", section 7.3.5):
    the total of the first arm's successes is a sum of hypergeometric variables. The p-value is twice the smaller tail,
    at most 1.

    Args:
        tables: Successes and failures of each stratum and arm, `(S, 2, 2)`.
    """
    law, total = np.ones(1), 0
    for (successes, failures), (others, other_failures) in tables:
        everyone, drawn = successes + failures + others + other_failures, successes + failures
        law = np.convolve(law, stats.hypergeom.pmf(np.arange(drawn + 1), everyone, successes + others, drawn))
        total += successes
    return min(1.0, 2 * min(float(law[: total + 1].sum()), float(law[total:].sum())))


@dataclass(frozen=True)
class Difference:
    """Difference of the means of two rows by Welch's test."""

    first: str  # name of the row from which `second` is subtracted
    second: str  # name of the subtracted row
    mean: float  # mean of `first` minus mean of `second`
    interval: Interval  # 95 % confidence interval for this pair alone
    p: float  # two-sided p-value of Welch's test
    adjusted: float  # `p` after Holm's correction over the pairs of the table

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.adjusted < 0.05


def prediction_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Compute the prediction interval for one further run (Hahn & Meeker 1991, "Statistical Intervals", section 4.7).

    Args:
        values: Results of runs that differ only in the seed, `(n,)`; assumed to be normal.
        confidence: Confidence level, from 0 to 1.

    Raises:
        ValueError: There are fewer than two values.
    """
    number = len(values)
    if number < 2:
        raise ValueError(f"a prediction interval needs two values or more, not {number}")
    half = float(stats.t.ppf((1 + confidence) / 2, number - 1) * values.std(ddof=1) * (1 + 1 / number) ** 0.5)
    return float(values.mean()) - half, float(values.mean()) + half


def noise_interval(accuracies: np.ndarray, test_size: int, published: float) -> Interval:
    """Compute the interval within which the noise of the runs explains a published accuracy.

    For three seeds or more, it is the 95 % prediction interval for one new run. For fewer, the published accuracy
    counts as one run on as many test images, and the interval is Newcombe's 95 % interval of the difference, shifted by
    the published accuracy. It ignores the variation between seeds; for two runs it spans both intervals.

    Args:
        accuracies: Accuracy of each run, `(n,)`, from 0 to 1, n at least 1.
        test_size: Number of test images.
        published: Published accuracy, from 0 to 1.
    """
    if len(accuracies) >= SEEDS_FOR_INTERVALS:
        low, high = prediction_interval(accuracies)
        return max(0.0, low), min(1.0, high)
    right = [(round(value * test_size), test_size) for value in (published, *accuracies)]
    bounds = [newcombe_interval(one, right[0]) for one in right[1:]]
    return published + min(low for low, _ in bounds), published + max(high for _, high in bounds)


def differences(rows: Mapping[str, np.ndarray]) -> list[Difference]:
    """Compare every pair of rows with five seeds or more; `rows` maps names to the runs' numbers, `(n,)`."""
    pairs = list(itertools.combinations([name for name, row in rows.items() if len(row) >= SEEDS_FOR_TESTS], 2))
    effects = [of_rows(rows[first], rows[second]) for first, second in pairs]
    tested = [effect.p(effect.mean) for effect in effects]
    return [
        Difference(first, second, effect.mean, effect.interval, p, adjusted)
        for (first, second), effect, p, adjusted in zip(pairs, effects, tested, holm(tested).tolist(), strict=True)
    ]


def t_interval(values: np.ndarray) -> Interval | None:
    """Compute the 95 % confidence interval of a mean over seeds by Student's t (Student 1908, Biometrika 6, by scipy).

    Args:
        values: One number per seed, `(n,)`; for paired seeds, their differences or the logarithms of their quotients.

    Returns:
        The interval; None for fewer than three seeds, or if a value is not finite.
    """
    if len(values) < SEEDS_FOR_INTERVALS or not np.isfinite(values).all():
        return None
    return of_seeds(values).interval


def bootstrap_interval(values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean) -> Interval | None:
    """Compute the 95 % percentile interval of a statistic over seeds (Efron & Tibshirani 1993, chapter 13, by scipy).

    For three seeds it is nearly their range and covers the mean in 75 % of cases instead of 95 %, so `t_interval`
    decides.

    Args:
        values: As for `t_interval`.
        statistic: Called with `axis`, like `np.mean`.

    Returns:
        The interval; None for fewer than three seeds, or if a value is not finite.
    """
    if len(values) < SEEDS_FOR_INTERVALS or not np.isfinite(values).all():
        return None
    bootstrapped = stats.bootstrap(
        (values,), statistic, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(bootstrapped.confidence_interval.low), float(bootstrapped.confidence_interval.high)
