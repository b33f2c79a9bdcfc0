"""What differences between runs of several seeds mean."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cifar_lab.statistics.accuracies import Interval, newcombe_interval
from cifar_lab.statistics.effects import of_rows, of_seeds
from cifar_lab.statistics.paired import holm

SEEDS_FOR_INTERVALS = 3
SEEDS_FOR_TESTS = 5


@dataclass(frozen=True)
class Difference:
    """The difference of two rows' means by Welch's test."""

    first: str  # the row from which `second` is subtracted
    second: str  # the other one
    mean: float  # of `first` less that of `second`
    interval: Interval  # its 95 % confidence interval, for this pair alone
    p: float  # two-sided, by Welch's test
    adjusted: float  # `p` by Holm's correction over the pairs of the table

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.adjusted < 0.05


def prediction_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Where one more run's number is expected (Hahn & Meeker 1991, "Statistical Intervals", section 4.7).

    Args:
        values: `(n,)`, of runs that differ in the seed alone; taken as normal.
        confidence: From 0 to 1.

    Raises:
        ValueError: Fewer than two values.
    """
    number = len(values)
    if number < 2:
        raise ValueError(f"a prediction interval needs two values or more, not {number}")
    half = float(stats.t.ppf((1 + confidence) / 2, number - 1) * values.std(ddof=1) * (1 + 1 / number) ** 0.5)
    return float(values.mean()) - half, float(values.mean()) + half


def noise_interval(accuracies: np.ndarray, test_size: int, published: float) -> Interval:
    """Where a published accuracy lies that the runs' noise explains.

    From three seeds on it is the 95 % prediction interval for one new run. Below that, the published number counts as
    one run on as many test images: it is explained if it lies within Newcombe's 95 % interval of the difference, added
    to it. That knows nothing of how seeds differ; of two runs it spans both intervals.

    Args:
        accuracies: Of each run, `(n,)`, from 0 to 1, n at least 1.
        test_size: Number of test images.
        published: From 0 to 1.
    """
    if len(accuracies) >= SEEDS_FOR_INTERVALS:
        low, high = prediction_interval(accuracies)
        return max(0.0, low), min(1.0, high)
    right = [(round(value * test_size), test_size) for value in (published, *accuracies)]
    bounds = [newcombe_interval(one, right[0]) for one in right[1:]]
    return published + min(low for low, _ in bounds), published + max(high for _, high in bounds)


def differences(rows: Mapping[str, np.ndarray]) -> list[Difference]:
    """Every pair of the rows, `(n,)` numbers of runs by the row's name, that have five seeds or more."""
    pairs = list(itertools.combinations([name for name, row in rows.items() if len(row) >= SEEDS_FOR_TESTS], 2))
    effects = [of_rows(rows[first], rows[second]) for first, second in pairs]
    tested = [effect.p(effect.mean) for effect in effects]
    return [
        Difference(first, second, effect.mean, effect.interval, p, adjusted)
        for (first, second), effect, p, adjusted in zip(pairs, effects, tested, holm(tested).tolist(), strict=True)
    ]


def t_interval(values: np.ndarray) -> Interval | None:
    """The 95 % confidence interval of a mean over seeds by Student's t (Student 1908, Biometrika 6, by scipy).

    Args:
        values: `(n,)`, one for each seed; for paired seeds, their differences or the logarithms of their quotients.

    Returns:
        None of fewer than three seeds, or if a value is not finite.
    """
    if len(values) < SEEDS_FOR_INTERVALS or not np.isfinite(values).all():
        return None
    return of_seeds(values).interval


def bootstrap_interval(values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean) -> Interval | None:
    """The 95 % percentile interval of a statistic over seeds (Efron & Tibshirani 1993, chapter 13, by scipy).

    For three seeds it is nearly their range and holds the mean in 75 % of cases, not in 95: `t_interval` decides.

    Args:
        values: As for `t_interval`.
        statistic: Called with `axis`, as `np.mean` is.

    Returns:
        None of fewer than three seeds, or if a value is not finite.
    """
    if len(values) < SEEDS_FOR_INTERVALS or not np.isfinite(values).all():
        return None
    found = stats.bootstrap((values,), statistic, method="percentile", n_resamples=9999, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
