"""Paired comparisons: of runs by seed, and of two networks by image.

Uses `scipy.special`, because importing `scipy.stats` takes longer than a table of 100 runs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, chdtrc, ndtri, stdtr, stdtrit

from cifar_lab.statistics.accuracies import Interval

EXACT_BELOW = 25
"""McNemar's test is exact below this number of discordant images."""


class Tested(NamedTuple):
    """Difference of two accuracies, its 95 % confidence interval, and the two-sided p-value."""

    difference: float
    interval: Interval
    p: float


def paired_t(first: np.ndarray, second: np.ndarray) -> Tested:
    """Run Student's paired t-test on `first - second` (Student 1908, Biometrika 6).

    Args:
        first: One number per seed, `(n,)`.
        second: Numbers for the same seeds, `(n,)`.

    Raises:
        ValueError: There are fewer than two pairs, or the shapes differ.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(f"a paired t-test needs two pairs or more, not {first.shape} and {second.shape}")
    differences = first - second
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / len(first) ** 0.5
    if math.isclose(error, 0, abs_tol=1e-12):  # no variation, for which the test is undefined
        return Tested(mean, (mean, mean), float(math.isclose(mean, 0, abs_tol=1e-12)))
    half = float(stdtrit(len(first) - 1, 0.975)) * error
    return Tested(mean, (mean - half, mean + half), 2 * float(stdtr(len(first) - 1, -abs(mean) / error)))


def mcnemar(only_first: int, only_second: int, total: int) -> Tested:
    """Run McNemar's test of two networks on the same images (McNemar 1947, Psychometrika 12).

    Uses the exact binomial test below 25 discordant images, else chi-square with one degree of freedom and Edwards'
    continuity correction (Dietterich 1998, Neural Computation 10). The interval is that of Agresti & Min (2005,
    Statistics in Medicine 24): the Wald interval after half an image is added to each of the four counts.

    Args:
        only_first: Number of images that the first network alone classifies correctly.
        only_second: Number of images that the second network alone classifies correctly.
        total: Number of images.

    Raises:
        ValueError: A count is negative, `total` is 0, or the counts add up to more than `total`.
    """
    discordant = only_first + only_second
    if min(only_first, only_second) < 0 or not 0 < total >= discordant:
        raise ValueError(f"{only_first} and {only_second} of {total} images are not discordant counts")
    if discordant < EXACT_BELOW:
        p = min(1.0, 2 * float(bdtr(min(only_first, only_second), discordant, 0.5)))
    else:
        p = float(chdtrc(1, max(0, abs(only_first - only_second) - 1) ** 2 / discordant))
    centre = (only_first - only_second) / (total + 2)
    half = float(ndtri(0.975)) * math.sqrt((discordant + 1) / (total + 2) - centre**2) / math.sqrt(total + 2)
    interval = max(-1.0, centre - half), min(1.0, centre + half)
    return Tested((only_first - only_second) / total, interval, p)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Apply Holm's step-down correction to p-values `(k,)` (Holm 1979, Scandinavian J. of Statistics 6).

    The smallest is multiplied by k, the next by k - 1, and so on; the results never decrease and are at most 1. Keeps
    the order of the input.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected
