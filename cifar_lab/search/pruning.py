"""A run that is one of many says how good it is, and ends where the others are better."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from cifar_lab.runs import PrunedError, float32_digits
from cifar_lab.train.callbacks.recorder import Recorder


class Pruning(Checkpoint):
    """Tells each epoch's validation accuracy, and ends the run where it is not worth going on.

    A `Checkpoint` in Lightning's eyes, so that the epoch is written and saved when it is called.

    Args:
        report: Called with the epoch, from 1, and its `val/acc`; whether the run is to end. Of the last epoch the
            answer is not heeded.
    """

    def __init__(self, report: Callable[[int, float], bool]) -> None:
        self.report = report

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Tell the epochs of a run that goes on, which it may not be worth.

        Raises:
            PrunedError: The run is to end.
        """
        (recorder,) = (each for each in trainer.callbacks if isinstance(each, Recorder))  # type: ignore[attr-defined]
        if recorder.run.metrics_file.exists():
            for epoch, accuracy in recorder.run.validated().items():
                self._tell(trainer, epoch, accuracy)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Tell the epoch, if it was validated.

        Raises:
            PrunedError: The run is to end.
        """
        if not pl_module.validated:
            return
        accuracy = float32_digits(float(trainer.callback_metrics["val/acc"]))
        self._tell(trainer, trainer.current_epoch + 1, accuracy)

    def _tell(self, trainer: L.Trainer, epoch: int, accuracy: float) -> None:
        if self.report(epoch, accuracy) and epoch < (trainer.max_epochs or 0):
            raise PrunedError(epoch)
