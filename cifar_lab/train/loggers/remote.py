"""The base of loggers of other services: no failure ends training, and a resumed run has one curve."""

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

_LONGEST = 200  # letters of an error


class Remote(Logger):
    """A mixin in front of Lightning's logger of a service.

    The first failure is a note, after which nothing more is sent. A run that the service does not have yet, or whose
    earlier part it keeps elsewhere, gets the epochs that the run's own files hold.
    """

    service: str  # its name, for notes
    description: Description
    has_history = False  # whether the service has the metrics before this attempt
    _is_open = _is_caught_up = _has_failed = False

    def describe(self, description: Description) -> None:
        """Store the description, which is sent when the run is opened."""
        self.description = description.without_private()

    @property
    def known_id(self) -> str | None:
        """The run's id of an earlier attempt."""
        return read_ids(self.description.run.loggers_file).get(self.service)

    def keep_id(self, run_id: str) -> None:
        """Keep the run's id for further attempts."""
        keep_id(self.description.run.loggers_file, self.service, run_id)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The service's run object; its first use, when training begins, opens the run."""
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
        """Leave the run open; its tests come after training."""

    @rank_zero_only
    def close(self, succeeded: bool) -> None:
        """Close the run, if it was opened."""
        if self._is_open:
            self._try(self._close, succeeded)

    @abstractmethod
    def _open(self) -> None:
        """Begin the run, or continue it, and set `has_history`."""

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
        """Print a note on the service."""
        note(f"{self.service}: {text}")


def line(error: Exception) -> str:
    """Return an exception's message in one short line."""
    words = " ".join(described(error).split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def read_ids(path: Path) -> dict[str, str]:
    """The ids that a file of a run or a sweep keeps, by service; none without the file."""
    try:
        return {str(service): str(each) for service, each in from_json(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def keep_id(path: Path, service: str, each: str) -> None:
    """Add the id of a service to those that a file keeps."""
    ids = {**read_ids(path), service: each}
    with replacing(path) as file:
        json.dump(ids, file)
