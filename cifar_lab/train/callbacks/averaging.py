"""Averages of the weights over training steps or epochs."""

from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch import Tensor
from torch.nn import SyncBatchNorm
from torch.optim.swa_utils import SWALR, get_ema_multi_avg_fn, update_bn

from cifar_lab.machine import ranks
from cifar_lab.machine.compilation import uncompiled
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.optimizers import relative_rates

_LARGEST_KEPT = 0.05  # share of the first step's weights in the average, above which a note is printed


class EMA(EMAWeightAveraging):
    """Lightning's exponential moving average without a GPU synchronisation per step; equal up to rounding.

    Args:
        decay: Share of the average that an update keeps.
        use_buffers: Average BatchNorm's statistics too; otherwise keep those of the last step.
        update_every_n_steps: Optimizer steps between two updates.
        warmup: After n updates, use a decay of `min(decay, (1 + n) / (10 + n))`, so that the average forgets the first
            steps (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """

    def __init__(
        self, decay: float = 0.999, use_buffers: bool = True, update_every_n_steps: int = 1, warmup: bool = False
    ) -> None:
        super().__init__(decay=decay, use_buffers=use_buffers, update_every_n_steps=update_every_n_steps)
        self.decay, self.every, self.warmup = decay, update_every_n_steps, warmup
        self._updates = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the average, created on the CPU in float32, to the device and dtype of the weights."""
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device, _dtype(pl_module))
        self._updates = int(self._average_model.n_averaged)
        steps = int(trainer.estimated_stepping_batches)
        kept = self.decay ** (steps // self.every)
        if kept > _LARGEST_KEPT and not self.warmup and not self._updates and trainer.is_global_zero:
            line = f"{steps:,} steps leave {kept:.0%} of the first step's weights in the average"
            print(f"note: averaging.decay={self.decay}: {line}; set averaging.warmup=true", flush=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; the first update copies the weights."""
        if not self._updates:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._updates = int(self._latest_update_step > 0)
        elif trainer.global_step > self._latest_update_step and self.should_update(step_idx=trainer.global_step - 1):
            self._update(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def _update(self, pl_module: L.LightningModule) -> None:
        assert self._average_model is not None
        average = self._average_model.module
        n = self._updates
        mix = get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay)
        pairs: list[tuple[Tensor, Tensor]] = list(zip(average.parameters(), pl_module.parameters(), strict=True))
        buffers = zip(average.buffers(), pl_module.buffers(), strict=True)
        if self._use_buffers:
            pairs += buffers
        else:
            for kept, now in buffers:
                kept.copy_(now)
        for is_float in (True, False):  # torch's function treats all tensors like the first one
            of_kind = [pair for pair in pairs if pair[0].is_floating_point() == is_float]
            if of_kind:
                mix([kept for kept, _ in of_kind], [now for _, now in of_kind], 0)
        self._average_model.n_averaged += 1
        self._updates += 1


class SWA(WeightAveraging):
    """Stochastic weight averaging: the mean of the weights after the last epochs (arXiv:1803.05407, algorithm 1).

    At the end of each averaged epoch, the weights are added to the average and the learning rate moves linearly towards
    `lr`. This replaces the run's own scheduler, whose learning rate still applies in the first averaged epoch. Epochs
    are validated with the raw weights. At the end of training, the average replaces them, and BatchNorm's statistics
    are re-estimated over the training images.

    Args:
        epochs: Epochs of the whole run.
        start: Fraction of the epochs after which averaging starts.
        anneal: Fraction of the epochs over which the learning rate moves to `lr`.
        lr: Final, constant learning rate of the optimizer's first group; other groups keep their ratio to it.

    Raises:
        ValueError: No epoch would be averaged.
    """

    most_batches: int | None = None  # maximum number of batches for re-estimating the statistics

    def __init__(self, epochs: float, start: float = 0.8, anneal: float = 0.1, lr: float = 0.05) -> None:
        super().__init__(use_buffers=False)
        self.first_epoch = round(start * epochs)
        if not 0 <= self.first_epoch < epochs:
            raise UsageError(f"averaging.start={start} of {epochs} epochs leaves none to average; set it lower")
        self.anneal_epochs = max(1, round(anneal * epochs))
        self.lr = lr
        self._scheduler: SWALR | None = None
        self._scheduler_state: dict[str, Any] | None = None

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return True at the end of an averaged epoch."""
        return epoch_idx is not None and epoch_idx >= self.first_epoch

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Create the scheduler of the averaged epochs, and convert the average to the dtype of the weights."""
        assert self._average_model is not None
        self._average_model.module.to(_dtype(pl_module))
        optimizer = trainer.optimizers[0]
        self._scheduler = SWALR(optimizer, self.lr, self.anneal_epochs, anneal_strategy="linear")
        for group, rate in zip(optimizer.param_groups, relative_rates(optimizer), strict=True):
            group["swa_lr"] = self.lr * rate
        if self._scheduler_state is not None:
            self._scheduler.load_state_dict(self._scheduler_state)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: object, batch_idx: int) -> None:
        """Disable the run's own scheduler in averaged epochs."""
        pl_module.follows_schedule = trainer.current_epoch < self.first_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Add the epoch's weights to the average, then step the learning rate."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.current_epoch >= self.first_epoch:
            assert self._scheduler is not None
            self._scheduler.step()

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Keep the raw weights for validation; Lightning would swap in the average."""

    def on_validation_epoch_end(self, *_: Any) -> None:
        """Keep the raw weights, because nothing was swapped."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Replace the weights by the average, and re-estimate its BatchNorm statistics.

        Raises:
            RuntimeError: Training ended before averaging began.
        """
        if not self._has_average():
            ended, begins = trainer.current_epoch, self.first_epoch
            raise RuntimeError(f"training ended in epoch {ended}, before averaging began after epoch {begins}")
        super().on_train_end(trainer, pl_module)
        loader: Any = trainer.train_dataloader
        if ranks.count() > 1 and not any(isinstance(module, SyncBatchNorm) for module in pl_module.modules()):
            loader = loader.whole()  # every process uses whole batches, so the statistics equal those of one process
        loader.set_epoch(trainer.max_epochs)
        # The momentum changes with every batch, and each value would trigger a recompilation.
        with uncompiled(), trainer.precision_plugin.forward_context():
            batches = islice(map(trainer.precision_plugin.convert_input, loader), self.most_batches)
            update_bn(batches, pl_module, device=pl_module.device)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the checkpoint's weights; before the first averaged epoch, the raw weights."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self._has_average():
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def _has_average(self) -> bool:
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, including the scheduler's."""
        assert self._scheduler is not None
        return {**super().state_dict(), "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state; the scheduler's is applied when training starts."""
        super().load_state_dict(state_dict)
        self._scheduler_state = state_dict["scheduler"]


def _dtype(pl_module: L.LightningModule) -> torch.dtype:
    """Return the dtype of the weights, which `pl_module.dtype` does not track."""
    return next(weight.dtype for weight in pl_module.parameters())
