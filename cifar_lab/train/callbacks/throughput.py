"""Measures the speed of a run."""

import time
from typing import Any

import lightning as L
import torch

from cifar_lab.machine import ranks

WARM_UP_STEPS = 10


class Throughput(L.Callback):
    """Times a run, and its training steps with data loading but without validation, end-of-epoch saving and warm-up.

    The warm-up is the first ten steps.

    A resumed run adds to the times in its checkpoint. Processes that train together are assumed to have equal parts of
    each batch.
    """

    def __init__(self) -> None:
        self._started, self._seconds_before = time.perf_counter(), 0.0
        self._images = self._epoch_images = 0
        self._seconds = self._epoch_training_seconds = 0.0
        self._steps = 0
        self.has_trained = False
        self._clock = self._epoch_clock = time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """Training images per second since the warm-up; NaN during it."""
        return self._images / self._seconds if self._images else float("nan")

    @property
    def epoch_images_per_second(self) -> float:
        """Training images per second of the current or last epoch, without the warm-up; NaN during it."""
        return self._epoch_images / self._epoch_training_seconds if self._epoch_images else float("nan")

    @property
    def epoch_seconds(self) -> float:
        """Wall seconds of the current or last epoch, including validation."""
        return time.perf_counter() - self._epoch_clock

    @property
    def seconds(self) -> float:
        """Wall seconds of the run, including those before it was resumed."""
        return self._seconds_before + time.perf_counter() - self._started

    def leave_out(self, seconds: float) -> None:
        """Exclude some seconds of the current step from its training time."""
        self._clock += seconds

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the times."""
        checkpoint["times"] = {"seconds": self.seconds, "images": self._images, "training_seconds": self._seconds}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the times; checkpoints of early versions have none."""
        times = checkpoint.get("times", {"seconds": 0.0, "images": 0, "training_seconds": 0.0})
        self._seconds_before = times["seconds"]
        self._images, self._seconds = times["images"], times["training_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that training has begun; Lightning skips this hook if no epoch is left."""
        self.has_trained = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clocks of the epoch."""
        self._clock = self._epoch_clock = time.perf_counter()
        self._epoch_images, self._epoch_training_seconds = 0, 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Count a step, timed from the end of the previous one, so that it includes waiting for its data."""
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # the device may still be working on the epoch's steps
        now = time.perf_counter()
        self._steps += 1
        if self._steps > WARM_UP_STEPS:
            images = len(batch[1]) * ranks.count()
            self._images += images
            self._epoch_images += images
            self._seconds += now - self._clock
            self._epoch_training_seconds += now - self._clock
        self._clock = now

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Exclude a mid-epoch validation from the time of the next step."""
        self._clock = time.perf_counter()
