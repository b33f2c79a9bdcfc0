"""Callback of a trial: reports each epoch's accuracy and ends a run that is to be pruned."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from cifar_lab.runs import PrunedError, float32_digits
from cifar_lab.train.callbacks.recorder import Recorder


class Pruning(Checkpoint):
    """Report each epoch's validation accuracy, and end the run if `report` returns True.

    It is a `Checkpoint` because Lightning calls those last, after the epoch has been written and saved.

    Args:
        report: Called with the epoch, from 1, and its `val/acc`; returns whether to prune the run. The result is
            ignored after the last epoch.
    """

    def __init__(self, report: Callable[[int, float], bool]) -> None:
        self.report = report

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Report the epochs of a resumed run; raise `PrunedError` if it is to be pruned."""
        (recorder,) = (each for each in trainer.callbacks if isinstance(each, Recorder))  # type: ignore[attr-defined]
        if recorder.run.metrics_file.exists():
            for epoch, accuracy in recorder.run.validated().items():
                self._report(trainer, epoch, accuracy)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Report the epoch if it was validated; raise `PrunedError` if the run is to be pruned."""
        if pl_module.validated:
            accuracy = float32_digits(float(trainer.callback_metrics["val/acc"]))
            self._report(trainer, trainer.current_epoch + 1, accuracy)

    def _report(self, trainer: L.Trainer, epoch: int, accuracy: float) -> None:
        if self.report(epoch, accuracy) and epoch < (trainer.max_epochs or 0):
            raise PrunedError(epoch)
