"""Stochastic weight averaging as the report runs it."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import SWALR, update_bn


class SWA(WeightAveraging):
    """The equal average of the weights at the ends of the last epochs (arXiv:1803.05407, algorithm 1).

    At the end of each epoch from the first averaged one on, the average takes the weights in and the learning rate
    steps towards `lr`, along a line over some epochs; the run's own scheduler is stepped no more. So the first
    averaged epoch still ran at the own scheduler's rate. Epochs are validated with the raw weights. At the end of
    training the average takes their place, and BatchNorm's statistics are estimated again over the training images.

    Args:
        epochs: Epochs of the whole run.
        start: Share of the epochs after which averaging starts.
        anneal: Share of the epochs over which the learning rate goes to `lr`.
        lr: Constant learning rate at the end.

    Raises:
        ValueError: No epoch would be averaged.
    """

    def __init__(self, epochs: int, start: float = 0.8, anneal: float = 0.1, lr: float = 0.05) -> None:
        super().__init__(use_buffers=False)
        self.first_epoch = round(start * epochs)
        if not 0 <= self.first_epoch < epochs:
            raise ValueError(f"averaging.start={start} of {epochs} epochs leaves none to average; set it below 1")
        self.anneal_epochs = max(1, round(anneal * epochs))
        self.lr = lr
        self._scheduler: SWALR | None = None
        self._scheduler_state: dict[str, Any] | None = None

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Take the weights in at the ends of the epochs from the first averaged one on."""
        return epoch_idx is not None and epoch_idx >= self.first_epoch

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Make the scheduler of the last epochs."""
        self._scheduler = SWALR(trainer.optimizers[0], self.lr, self.anneal_epochs, anneal_strategy="linear")
        if self._scheduler_state is not None:
            self._scheduler.load_state_dict(self._scheduler_state)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: object, batch_idx: int) -> None:
        """Take over the learning rate when its time has come."""
        pl_module.follows_schedule = trainer.current_epoch < self.first_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Take the epoch's weights in, then step the learning rate."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.current_epoch >= self.first_epoch:
            assert self._scheduler is not None
            self._scheduler.step()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the raw weights."""

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing to put back."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Put the average in the weights' place, and estimate BatchNorm's statistics for it.

        Raises:
            RuntimeError: Training ended before an epoch was averaged.
        """
        if not self._has_average():
            ended, begins = trainer.current_epoch, self.first_epoch
            raise RuntimeError(f"training ended in epoch {ended}, before averaging began after epoch {begins}")
        super().on_train_end(trainer, pl_module)
        loader: Any = trainer.train_dataloader
        loader.set_epoch(trainer.max_epochs)
        with trainer.precision_plugin.forward_context():
            update_bn(loader, pl_module, device=pl_module.device)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the checkpoint's weights, once there is one; until then the raw weights."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self._has_average():
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def _has_average(self) -> bool:
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        assert self._scheduler is not None
        return {**super().state_dict(), "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what was saved."""
        super().load_state_dict(state_dict)
        self._scheduler_state = state_dict["scheduler"]
