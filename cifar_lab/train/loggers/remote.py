"""Base of the loggers for external services: no failure stops training, and a resumed run keeps one curve."""

import io
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyExperiment  # type: ignore[attr-defined]
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from cifar_lab.runs import described, from_json, replacing
from cifar_lab.terminal.printing import note
from cifar_lab.train.loggers.description import CONFUSION_MATRIX, Description

_LONGEST = 200  # characters of an error message


class Remote(Logger):
    """Mixin for Lightning's logger of a service; place it first among the base classes.

    After the first failure, which is printed as a note, nothing more is sent. If the service does not have the metrics
    before this attempt, it gets the epochs recorded in the run's own files.
    """

    service: str  # name of the service, for notes
    description: Description
    has_history = False  # whether the service has the metrics before this attempt
    _is_open = _is_caught_up = _has_failed = False

    def describe(self, description: Description) -> None:
        """Store the description, which is sent when the run is opened."""
        self.description = description.without_private()

    @property
    def known_id(self) -> str | None:
        """The service's run id of an earlier attempt, or None."""
        return read_ids(self.description.run.loggers_file).get(self.service)

    def keep_id(self, run_id: str) -> None:
        """Store the service's run id for later attempts."""
        keep_id(self.description.run.loggers_file, self.service, run_id)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The service's run object; the first access, when training starts, opens the run."""
        if not self._is_open:
            self._is_open = True
            self._try(self._open)
        return DummyExperiment() if self._has_failed else super().experiment  # type: ignore[misc]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send metrics of an optimizer step."""
        _ = self.experiment
        self._try(self._log, metrics, step)

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, float], step: int, confusion_matrix: bytes) -> None:
        """Send a run's result, and the PNG of its confusion matrix."""
        self.log_metrics(metrics, step)
        if confusion_matrix:
            self._try(self._log_image, CONFUSION_MATRIX, Image.open(io.BytesIO(confusion_matrix)), step)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Leave the run open, because it is tested after training."""

    @rank_zero_only
    def close(self, succeeded: bool) -> None:
        """Close the run, if it was opened."""
        if self._is_open:
            self._try(self._close, succeeded)

    @abstractmethod
    def _open(self) -> None:
        """Create or reopen the run, and set `has_history`."""

    @abstractmethod
    def _log_image(self, name: str, image: Image.Image, step: int) -> None: ...

    @abstractmethod
    def _close(self, succeeded: bool) -> None: ...

    def _log(self, metrics: Mapping[str, float], step: int | None) -> None:
        if not self._is_caught_up and not self.has_history:
            for at, epoch in self.description.epochs():
                super().log_metrics(epoch, at)  # type: ignore[safe-super]
        self._is_caught_up = True
        super().log_metrics(dict(metrics), step)  # type: ignore[safe-super]

    def _try(self, send: Callable[..., object], *arguments: object) -> None:
        if not self._has_failed:
            try:
                send(*arguments)
            except Exception as error:
                self._has_failed = True
                self.note(f"{line(error)}; training continues without it")

    def note(self, text: str) -> None:
        """Print a note that names the service."""
        note(f"{self.service}: {text}")


def line(error: Exception) -> str:
    """Return an exception's message in one line of at most 200 characters."""
    words = " ".join(described(error).split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def read_ids(path: Path) -> dict[str, str]:
    """Read run ids by service from a file of a run or a sweep; empty if the file cannot be read."""
    try:
        return {str(service): str(each) for service, each in from_json(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def keep_id(path: Path, service: str, each: str) -> None:
    """Add a service's run id to such a file."""
    ids = {**read_ids(path), service: each}
    with replacing(path) as file:
        json.dump(ids, file)
