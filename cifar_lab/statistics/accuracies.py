"""Confidence intervals of accuracies."""

import math

import numpy as np
from scipy.special import ndtri, stdtrit  # importing scipy.stats takes longer than a table of 100 runs

Interval = tuple[float, float]
"""Lower and upper bounds."""


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Compute the Wilson score interval of a proportion (Wilson 1927, "Probable Inference").

    Args:
        correct: Number of correct answers.
        total: Number of answers.
        confidence: Confidence level, from 0 to 1.

    Returns:
        Lower and upper bounds, from 0 to 1.

    Raises:
        ValueError: `correct` is not between 0 and `total`, or `total` is 0.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} of {total} is not a proportion")
    z, share = float(ndtri((1 + confidence) / 2)), correct / total
    centre = (2 * correct + z**2) / (2 * (total + z**2))
    half = z / (2 * (total + z**2)) * math.sqrt(4 * correct * (1 - share) + z**2)
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe_interval(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Compute the hybrid score interval of the difference of two proportions, `first - second`.

    Method 10 of Newcombe 1998, Statistics in Medicine 17.

    Args:
        first: Number of correct answers, and number of answers.
        second: Number of correct answers, and number of answers.
        confidence: Confidence level, from 0 to 1.

    Raises:
        ValueError: As for `wilson_interval`.
    """
    shares = [correct / max(total, 1) for correct, total in (first, second)]
    bounds = [wilson_interval(*counts, confidence) for counts in (first, second)]
    down, up = ([abs(share - bound[side]) for share, bound in zip(shares, bounds, strict=True)] for side in (0, 1))
    mean = shares[0] - shares[1]
    return mean - math.hypot(down[0], up[1]), mean + math.hypot(up[0], down[1])


def accuracy_interval(accuracies: np.ndarray, test_size: int, confidence: float = 0.95) -> Interval:
    """Compute the confidence interval of a composition's test accuracy.

    For three runs or more, Student's interval of the mean over seeds, clipped to 0 and 1. Two runs are too few for a
    standard deviation, so the interval spans the Wilson intervals of both. For one run it is the Wilson interval, which
    ignores the variation between seeds.

    Args:
        accuracies: Accuracy of each run, `(n,)`, from 0 to 1.
        test_size: Number of test images.
        confidence: Confidence level, from 0 to 1.
    """
    mean, number = float(accuracies.mean()), len(accuracies)
    if number < 3:
        bounds = [wilson_interval(round(value * test_size), test_size, confidence) for value in accuracies]
        return min(low for low, _ in bounds), max(high for _, high in bounds)
    deviation = float(accuracies.std(ddof=1)) / number**0.5
    half = float(stdtrit(number - 1, (1 + confidence) / 2)) * deviation
    return max(0.0, mean - half), min(1.0, mean + half)
