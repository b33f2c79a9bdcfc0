"""Number of seeds that a test needs."""

import math

from scipy.special import nctdtr, ndtri, stdtrit


def seeds_needed(
    deviation: float, difference: float, power: float = 0.8, alpha: float = 0.05, paired: bool = False
) -> int:
    """Compute the number of seeds with which a two-sided t-test finds a true difference with the given power.

    It is the smallest n for which a noncentral t exceeds the critical value with probability `power` (Cohen 1988,
    "Statistical Power Analysis", chapter 2). Significance in the wrong direction does not count.

    Args:
        deviation: Standard deviation between the seeds of each row, or of the paired differences; in the unit of
            `difference`.
        difference: The true difference; its sign does not matter.
        power: Probability of significance, from 0.5 to 1.
        alpha: Significance level of the test.
        paired: Whether to test n differences (or one mean) instead of two rows of n seeds each.

    Raises:
        ValueError: `difference` is 0, which no test finds, or `deviation` is negative or NaN.
    """
    if not difference or not deviation >= 0:
        raise ValueError(f"no number of seeds can detect a difference of {difference} at a deviation of {deviation}")
    if deviation == 0:
        return 2
    rows = 1 if paired else 2
    shift = abs(difference) / deviation / rows**0.5
    # The normal approximation, a lower bound, leaves few numbers to try.
    seeds = max(2, math.floor((float(ndtri(1 - alpha / 2) + ndtri(power)) / shift) ** 2))
    while seeds < 10_000:  # beyond it, the approximation is exact to one seed, and nctdtr is slow
        freedom = rows * (seeds - 1)
        if nctdtr(freedom, min(shift * seeds**0.5, 30), stdtrit(freedom, 1 - alpha / 2)) <= 1 - power:
            break
        seeds += 1
    return seeds
