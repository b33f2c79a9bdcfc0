"""Saves the weights of the network during training, as state dict files."""

from typing import Any

import lightning as L

from cifar_lab.runs import Run


class Snapshots(L.Callback):
    """Saves the network's state dict before the first step and every `every_epochs` epochs.

    These are the raw weights with BatchNorm's statistics, even if the run averages weights.

    Args:
        run: Run to write to.
        every_epochs: Epochs between two snapshots; the last epoch is always saved.
    """

    def __init__(self, run: Run, every_epochs: int = 1) -> None:
        self.run = run
        self.every_epochs = every_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the initial weights."""
        if trainer.global_step == 0:
            self.run.save_snapshot(pl_module.model, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the epoch's weights, if they are due."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            self.run.save_snapshot(pl_module.model, epoch)
