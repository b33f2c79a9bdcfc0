"""What is known of a search's trials, in plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrialRecord:
    """A trial.

    Attributes:
        number: From 0, in the order in which they were begun.
        values: What it has for each key, as one would type it.
        state: finished, pruned, diverged, failed, interrupted or running.
        accuracy: `val/acc` of the chosen epoch, from 0 to 1, if it has finished.
        reports: `val/acc` by epoch, from 1.
        folder: Of its run, from the search's; None before it has ended.
        error: Why it has failed or diverged.
    """

    number: int
    values: Mapping[str, str]
    state: str
    accuracy: float | None = None
    reports: Mapping[int, float] = field(default_factory=dict)
    folder: str | None = None
    error: str | None = None

    @property
    def epoch(self) -> int:
        """The last that was validated, from 1; 0 before the first."""
        return max(self.reports, default=0)

    @property
    def description(self) -> str:
        """The state, with where it ended and why; accuracies that are no result stand here alone."""
        if self.state in ("pruned", "interrupted", "running") and self.reports:
            return f"{self.state} at epoch {self.epoch}, val acc {self.reports[self.epoch]:.2%}"
        return f"{self.state}: {self.error}" if self.error else self.state


def best_of(trials: list[TrialRecord]) -> TrialRecord | None:
    """The finished trial with the highest accuracy, the first of equals; None without one."""
    finished = [trial for trial in trials if trial.accuracy is not None]
    return max(finished, key=lambda trial: trial.accuracy or 0.0, default=None)
