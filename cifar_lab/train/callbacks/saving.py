"""Checkpoints of a run: the last one to resume from, the one before it, and the best epoch's."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO

from cifar_lab.machine import ranks
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run, read_checkpoint, write_checkpoint


def best(run: Run) -> ModelCheckpoint:
    """Return the callback that keeps the checkpoint of the epoch with the best `val/acc`; ties go to the first."""
    return _Best(
        dirpath=run.checkpoints,
        filename=run.best_checkpoint.stem,
        monitor="val/acc",
        mode="max",
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


class _Best(ModelCheckpoint):
    """Keeps the best accuracy even if the run's folder was moved, where Lightning's ModelCheckpoint loses it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        here = {name: self._here(state_dict[name]) for name in paths}
        scores = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": scores, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return os.path.join(str(self.dirpath), os.path.basename(path)) if path else path


class CheckpointFiles(CheckpointIO):
    """Writes checkpoints atomically, and reads only complete ones that contain no code."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; if it is the last checkpoint, keep its predecessor."""
        previous = self.run.previous_checkpoint if path == self.run.last_checkpoint else None
        write_checkpoint(checkpoint, self.run.checkpoints / str(path), previous)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint without running code, regardless of `weights_only`."""
        return read_checkpoint(self.run.checkpoints / str(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        (self.run.checkpoints / str(path)).unlink(missing_ok=True)


class Saving(Checkpoint):
    """Saves the last checkpoint at the end of every epoch, at intervals within long epochs, and after a signal.

    Within an epoch, it saves only after complete optimizer steps and never after the last batch. A run resumed from
    there would skip the end of the epoch and its validation, because of Lightning. Nothing is saved during validation,
    when averaged weights may replace the raw ones. Processes that train together save and stop at the same step.

    Args:
        run: Run to save.
        interruption: Records signals.
        every_minutes: Minutes between two checkpoints within an epoch; None saves only at its end.
        goes_beyond: Continue training past the limit that had ended it.
    """

    def __init__(
        self, run: Run, interruption: Interruption, every_minutes: float | None = 15.0, goes_beyond: bool = False
    ) -> None:
        self.run = run
        self.interruption = interruption
        self.every_minutes = every_minutes
        self._saved = 0.0
        self.goes_beyond = goes_beyond
        self._has_stopped = self._is_cut = False
        self._patience: list[int] = []

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save whether training was stopped early, which Lightning does not."""
        checkpoint["has_stopped"] = bool(trainer.should_stop)
        checkpoint["is_cut"] = self._is_cut

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Load whether training was stopped early."""
        self._has_stopped = checkpoint["has_stopped"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remember the configured patience."""
        self._patience = [callback.patience for callback in trainer.early_stopping_callbacks]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and stop at once if training had been stopped early."""
        self._saved = time.monotonic()
        trainer.should_stop = self._has_stopped and not self.goes_beyond
        for callback, patience in zip(trainer.early_stopping_callbacks, self._patience, strict=True):
            callback.patience = patience  # loading the checkpoint has overwritten it

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Save if a checkpoint is due or a signal was received."""
        is_whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_last_batch or not is_whole_step:
            return
        minutes = (time.monotonic() - self._saved) / 60
        due = self.every_minutes is not None and minutes >= self.every_minutes
        if self._agreed(due):
            self._save(trainer, pl_module)
            self.interruption.check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the epoch, which a time limit may have cut short."""
        self._is_cut = not trainer.is_last_batch
        self._agreed(due=False)
        self._save(trainer, pl_module)
        self.interruption.check()

    def _agreed(self, due: bool) -> bool:
        """Return whether a checkpoint is due or a signal was received, in any of the processes."""
        due_anywhere, received = ranks.largest([due, self.interruption.received or 0])
        if received:
            self.interruption.received = signal.Signals(received)
        return bool(due_anywhere or received)

    def _save(self, trainer: L.Trainer, pl_module: Any) -> None:
        # On a GPU the loss is not checked at every step, and weights after a non-finite loss must not be saved.
        if bool(torch.isfinite(pl_module.step_loss)):
            trainer.save_checkpoint(self.run.last_checkpoint)
            self.run.set_state("running", step=trainer.global_step)
        self._saved = time.monotonic()


class Stopping(L.Callback):
    """Stops validation and tests after a signal, without saving."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_train_start(self, *_: Any) -> None:
        """Listen to signals in Lightning's place."""
        self.interruption.take_back()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop, if a signal was received."""
        self.interruption.check()

    def on_test_start(self, *_: Any) -> None:
        """Listen to signals in Lightning's place."""
        self.interruption.take_back()

    def on_test_batch_start(self, *_: Any) -> None:
        """Stop, if a signal was received."""
        self.interruption.check()
