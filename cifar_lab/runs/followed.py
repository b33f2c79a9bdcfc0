"""A run's directory where another process writes it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cifar_lab.runs.run import Run

if TYPE_CHECKING:
    from torch import nn


class FollowedRun(Run):
    """One run's directory, for a process that trains together with the one that writes it: it reads alone.

    Args:
        folder: The directory.
    """

    def set_state(self, state: str, **details: object) -> None:
        """Leave it to the process that writes, as all that follows."""

    def append_metrics(self, row: Mapping[str, float | int | None]) -> None:
        """Write nothing."""

    def truncate(self, epochs: int, steps: int) -> None:
        """Write nothing."""

    def write_steps(self, steps: Mapping[str, np.ndarray]) -> None:
        """Write nothing."""

    def write_probes(self, probes: Mapping[str, np.ndarray]) -> None:
        """Write nothing."""

    def save_weights(self, model: "nn.Module", name: str) -> None:
        """Write nothing."""

    def save_snapshot(self, model: "nn.Module", epoch: int) -> None:
        """Write nothing."""
