"""Numbers over seeds with their standard errors, and how surely they lie on one side of a bound."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from cifar_lab.statistics.accuracies import Interval


class Effect(NamedTuple):
    """A mean over seeds, or the difference of two rows' means."""

    mean: float  # the estimate
    error: float  # its standard error; NaN of one seed
    freedom: float  # degrees of freedom of its t
    deviation: float  # between seeds; of two rows the root mean square of theirs
    seeds: int  # their number, of two rows the smaller one
    is_paired: bool  # whether it is of one row, of paired differences for example, and not of two

    @property
    def interval(self) -> Interval:
        """The 95 % confidence interval."""
        half = float(stats.t.ppf(0.975, self.freedom)) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    def p(self, distance: float) -> float:
        """Two-sided, of an estimate so far from a bound: 1 - c for the confidence c whose interval touches it."""
        if self.error < 1e-12:  # no noise at all, where the test has no number
            return float(abs(distance) < 1e-12)
        return 2 * float(stats.t.sf(abs(distance) / self.error, self.freedom))


def of_rows(first: np.ndarray, second: np.ndarray) -> Effect:
    """The difference of the means of `(n,)` and `(m,)`, n and m at least 1 (Welch 1947, Biometrika 34)."""
    mean, seeds = float(first.mean() - second.mean()), min(len(first), len(second))
    if seeds < 2:
        return Effect(mean, np.nan, np.nan, np.nan, seeds, is_paired=False)
    variances = np.array([first.var(ddof=1), second.var(ddof=1)])
    shares, numbers = variances / (len(first), len(second)), np.array([len(first), len(second)])
    total = float(shares.sum())
    freedom = total**2 / float((shares**2 / (numbers - 1)).sum()) if total else np.inf
    return Effect(mean, total**0.5, freedom, float(variances.mean()) ** 0.5, seeds, is_paired=False)


def of_seeds(values: np.ndarray) -> Effect:
    """The mean of `(n,)`, n at least 1, by Student's t (Student 1908, Biometrika 6); paired differences for example."""
    number = len(values)
    deviation = float(values.std(ddof=1)) if number > 1 else np.nan
    return Effect(float(values.mean()), deviation / number**0.5, number - 1, deviation, number, is_paired=True)


def stratified_exact(tables: np.ndarray) -> float:
    """Two-sided exact p that a share is equal in two arms, given the margins of every stratum (Mantel-Haenszel).

    The exact conditional test (Agresti, "Categorical Data Analysis", section 7.3.5): the total of the first arm's
    successes is a sum of hypergeometric numbers; twice the smaller tail, at most 1.

    Args:
        tables: `(S, 2, 2)`, for each stratum and arm the successes and the failures.
    """
    law, total = np.ones(1), 0
    for (successes, failures), (others, other_failures) in tables:
        everyone, drawn = successes + failures + others + other_failures, successes + failures
        law = np.convolve(law, stats.hypergeom.pmf(np.arange(drawn + 1), everyone, successes + others, drawn))
        total += successes
    return min(1.0, 2 * min(float(law[: total + 1].sum()), float(law[total:].sum())))
