"""The checkpoints that a run resumes from."""

import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from cifar_lab.machine import ranks
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run, read_checkpoint, write_checkpoint


class CheckpointFiles(CheckpointIO):
    """Writes checkpoints whole or not at all, and reads only what is whole and holds no code.

    Args:
        run: Of its last checkpoint the one before is kept too.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        previous = self.run.previous_checkpoint if path == self.run.last_checkpoint else None
        write_checkpoint(checkpoint, self.run.checkpoints / str(path), previous)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; never code, whatever `weights_only` says."""
        return read_checkpoint(self.run.checkpoints / str(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        (self.run.checkpoints / str(path)).unlink(missing_ok=True)


class Saving(Checkpoint):
    """Saves the last checkpoint at every epoch's end, within long epochs, and where a signal asks the run to stop.

    Within an epoch it saves only where an optimizer step is complete, and never after an epoch's last batch, from where
    Lightning would not do that epoch's end and validation. Validation is never saved in: averaged weights may stand in
    for the raw ones there. Processes that train together save and stop at the same step.

    Args:
        run: Where to save.
        interruption: Notes signals.
        every_minutes: Within an epoch; None saves at its end only.
    """

    def __init__(self, run: Run, interruption: Interruption, every_minutes: float | None = 15.0) -> None:
        self.run = run
        self.interruption = interruption
        self.every_minutes = every_minutes
        self._saved = 0.0
        self._has_stopped = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep that training has been stopped early, which Lightning forgets."""
        checkpoint["has_stopped"] = bool(trainer.should_stop)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on from what was saved."""
        self._has_stopped = checkpoint["has_stopped"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and train no more where training had been stopped."""
        self._saved = time.monotonic()
        trainer.should_stop = self._has_stopped

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: object,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        """Save if it is time, or a signal was received."""
        is_whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_last_batch or not is_whole_step:
            return
        minutes = (time.monotonic() - self._saved) / 60
        due = self.every_minutes is not None and minutes >= self.every_minutes
        if self._agreed(due):
            self._save(trainer, pl_module)
            self.interruption.check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the epoch."""
        self._agreed(due=False)
        self._save(trainer, pl_module)
        self.interruption.check()

    def _agreed(self, due: bool) -> bool:
        """Whether it is time, or a signal was received, in any of the processes that train together."""
        due_anywhere, received = ranks.largest([due, self.interruption.received or 0])
        if received:
            self.interruption.received = signal.Signals(received)
        return bool(due_anywhere or received)

    def _save(self, trainer: L.Trainer, pl_module: Any) -> None:
        # On a GPU a loss is looked at now and then only; weights from behind a bad one must not be kept.
        if bool(torch.isfinite(pl_module.step_loss)):
            trainer.save_checkpoint(self.run.last_checkpoint)
            self.run.set_state("running", step=trainer.global_step)
        self._saved = time.monotonic()


class Stopping(L.Callback):
    """Stops validations and tests where a signal asked for it, without saving.

    Args:
        interruption: Notes signals.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_train_start(self, *_: Any) -> None:
        """Listen to signals in Lightning's place."""
        self.interruption.take_back()

    def on_test_start(self, *_: Any) -> None:
        """Listen to signals in Lightning's place."""
        self.interruption.take_back()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop, if a signal was received."""
        self.interruption.check()

    def on_test_batch_start(self, *_: Any) -> None:
        """Stop, if a signal was received."""
        self.interruption.check()
