"""Lookahead: slow weights that follow the trained ones."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging

from cifar_lab.machine.exit_codes import UsageError


class Lookahead(WeightAveraging):
    """Moves slow weights towards the trained, fast weights and continues training from them (arXiv:1907.08610).

    Every `every_n_steps` optimizer steps, `slow += a * (fast - slow)`, then `fast = slow`. Here `a = alpha`, or with
    `power`, after step t of T, `a = 1 - (1 - alpha) * (t / T) ** power`. This starts at 1, so averaging sets in
    gradually. BatchNorm's running statistics are averaged like weights, as in github.com/KellerJordan/cifar10-airbench,
    whose lookahead uses alpha 0.2262, power 3, 5 steps and a start after 0.3 of the run. The paper, in contrast, does
    not average statistics and keeps `a` constant. Frozen parameters do not change. The optimizer keeps its state.

    Validation, checkpoints and the end of training use the slow weights, which the paper's algorithm returns. If the
    number of steps is not a multiple of `every_n_steps`, the last steps have no effect. After a validation, training
    continues from the fast weights; airbench returns to the slow ones. Before `start` there are no slow weights, and
    the trained weights are validated and saved.

    Args:
        alpha: Step of the slow weights towards the fast ones, a fraction; with `power`, its final value.
        every_n_steps: Optimizer steps between two updates.
        power: Exponent of the schedule of `a`; 0 keeps `a = alpha`.
        start: Fraction of the run's steps after which the slow weights begin as a copy; 0 copies the initial weights.

    Raises:
        ValueError: `alpha` is outside (0, 1].
    """

    def __init__(self, alpha: float = 0.5, every_n_steps: int = 5, power: float = 0.0, start: float = 0.0) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise UsageError(f"averaging.alpha={alpha}: lookahead needs a number above 0 and at most 1")
        self.alpha, self.every, self.power, self.start = alpha, every_n_steps, power, start
        self._has_begun = False

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Copy the initial weights if `start` is 0."""
        assert self._average_model is not None
        weight = next(pl_module.model.parameters())
        self._average_model.module.to(weight.device, weight.dtype)
        if not self.start and not self._has_begun:
            self._begin(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the slow weights and continue from them, every `every_n_steps` steps."""
        step = trainer.global_step
        if step == self._latest_update_step or step % self.every:
            return
        self._latest_update_step = step
        progress = step / (getattr(pl_module, "total_steps", None) or trainer.estimated_stepping_batches)
        if self._has_begun:
            self._update(pl_module, 1 - (1 - self.alpha) * progress**self.power)
        elif progress >= self.start:
            self._begin(pl_module)

    def _begin(self, pl_module: L.LightningModule) -> None:
        self._update(pl_module, 1.0)
        self._has_begun = True

    @torch.no_grad()
    def _update(self, pl_module: L.LightningModule, share: float) -> None:
        assert self._average_model is not None
        average = self._average_model.module
        for slow, fast in zip(average.parameters(), pl_module.parameters(), strict=True):
            fast.copy_(slow.lerp_(fast, share if fast.requires_grad else 1.0))
        for kept, now in zip(average.buffers(), pl_module.buffers(), strict=True):
            if now.is_floating_point():
                now.copy_(kept.lerp_(now, share))
            else:
                kept.copy_(now)
        self._average_model.n_averaged += 1

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the slow weights."""
        if self._has_begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Return to the fast weights."""
        if self._has_begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the weights by the slow weights."""
        if self._has_begun:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the slow weights as the checkpoint's weights; before `start`, the trained ones."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self._has_begun:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the fast and the slow weights."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._has_begun = self._average_model is not None and bool(self._average_model.n_averaged)
