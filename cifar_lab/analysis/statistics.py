"""Statistics of accuracies."""

from scipy.stats import binomtest


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927, "Probable Inference", by scipy).

    Args:
        correct: Number of right answers.
        total: Number of answers.
        confidence: From 0 to 1.

    Returns:
        Lower and upper bound, from 0 to 1.

    Raises:
        ValueError: `correct` is not between 0 and `total`, or `total` is 0.
    """
    interval = binomtest(correct, total).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)
