"""Runs with a fractional number of epochs."""

import math
from fractions import Fraction
from typing import Any

import lightning as L


def batches_of_run(epochs: float, whole: int) -> int:
    """Return the training batches in `epochs` epochs of `whole` batches, rounded up."""
    return math.ceil(Fraction(str(epochs)) * whole)  # exact in decimals; as floats, 6.4 * 250 is above 1,600


class LastEpoch(L.Callback):
    """Ends a fractional last epoch early, but validates and saves it like a whole one.

    Args:
        epochs: Epochs of the run, such as 6.6; Lightning's `max_epochs` is the next whole number.
    """

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Mark the last batch, so that Lightning steps with the accumulated gradients and ends the epoch."""
        whole = int(trainer.num_training_batches)
        pl_module.epoch_batches = min(whole, batches_of_run(self.epochs, whole) - trainer.current_epoch * whole)
        if batch_idx + 1 == pl_module.epoch_batches:
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Stop after the last batch; Lightning validates before an epoch's usual end only if `should_stop` is set."""
        if batch_idx + 1 == pl_module.epoch_batches < trainer.num_training_batches:
            trainer.should_stop = True
