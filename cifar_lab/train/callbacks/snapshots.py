"""Saves the network's weights during training, as plain files."""

from typing import Any

import lightning as L

from cifar_lab.runs import Run


class Snapshots(L.Callback):
    """Keeps the network's state dict before the first step, then after epochs.

    They are the raw weights, also of a run that averages them, with BatchNorm's statistics.

    Args:
        run: Where to write.
        every_epochs: Epochs between two snapshots; the last epoch's is always kept.
    """

    def __init__(self, run: Run, every_epochs: int = 1) -> None:
        self.run = run
        self.every_epochs = every_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Keep the initial weights."""
        if trainer.global_step == 0:
            self.run.save_snapshot(pl_module.model, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Keep the epoch's weights, if they are due."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            self.run.save_snapshot(pl_module.model, epoch)
