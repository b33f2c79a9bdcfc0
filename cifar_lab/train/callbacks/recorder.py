"""Records every epoch and every step of a run on disk."""

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from cifar_lab.runs import DivergedError, Run, float32_digits
from cifar_lab.runs.run_files import STEP_QUANTITIES
from cifar_lab.train.callbacks.throughput import Throughput

# Optimizer steps between two checks that the loss is finite, on a GPU.
CHECKED_EVERY_STEPS = 50
_EPOCH_METRICS = ("train/loss", "train/objective", "train/acc", "val/loss", "val/acc", "train/lr")


class Recorder(Checkpoint):
    """Writes `metrics.csv`, `steps.npz` and the state of a run.

    The class is a `Checkpoint` because Lightning calls these after the module has logged the epoch. Step values stay on
    the device until the epoch ends, so that no step waits for it. A step is an optimizer step; its loss is the mean
    over the batches that it accumulates.
    """

    def __init__(self, run: Run, throughput: Throughput) -> None:
        self.run = run
        self.throughput = throughput
        self._accumulated: list[Tensor] = []
        self._steps: list[Tensor] = []
        self._lr: list[float] = []
        self._saved: dict[str, list[float]] = {name: [] for name in STEP_QUANTITIES}
        self._global_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Record the start of training; when resuming, remove the records made after the checkpoint."""
        self._global_step = trainer.global_step
        steps = trainer.global_step - len(self._steps)
        if trainer.global_step > 0:
            self.run.truncate(trainer.current_epoch, steps)
            if steps > 0:
                self._saved = {name: values.tolist() for name, values in self.run.steps().items()}
        self.run.set_state("running", epoch=trainer.current_epoch, epochs=trainer.max_epochs, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the steps of the current epoch, which are not on disk yet."""
        return {"steps": list(self._steps), "lr": list(self._lr)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the steps of the current epoch."""
        self._steps, self._lr = list(state_dict["steps"]), list(state_dict["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        """Store the values of the last step.

        Raises:
            DivergedError: The loss is not finite.
        """
        self._accumulated.append(pl_module.step_loss)
        if trainer.global_step == self._global_step:
            return
        self._global_step = trainer.global_step
        losses = self._accumulated
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        self._steps.append(torch.stack([loss, pl_module.grad_norm, pl_module.first_conv_grad_norm.float()]))
        self._lr.append(pl_module.step_lr)
        self._accumulated = []
        # Reading a loss waits for the GPU, so it is checked every CHECKED_EVERY_STEPS steps and before validation.
        if pl_module.device.type == "cpu" or trainer.is_last_batch or self._global_step % CHECKED_EVERY_STEPS == 0:
            self._check(loss)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the epoch's row to `metrics.csv` and its steps to `steps.npz`."""
        self._write_steps()
        epoch = trainer.current_epoch + 1
        row: dict[str, float | int | None] = {"epoch": epoch, "step": trainer.global_step}
        for name in _EPOCH_METRICS:
            value = trainer.callback_metrics.get(name) if pl_module.validated or not name.startswith("val/") else None
            row[name] = None if value is None else float32_digits(float(value))
        row["seconds"] = round(self.throughput.epoch_seconds, 3)
        row["images_per_second"] = round(self.throughput.epoch_images_per_second, 1)
        self.run.append_metrics(row)
        self.run.set_state("running", epoch=epoch, epochs=trainer.max_epochs, step=trainer.global_step)

    def _check(self, loss: Tensor) -> None:
        if bool(torch.isfinite(loss)):
            return
        losses = torch.stack([step[0] for step in self._steps])
        first = int((~torch.isfinite(losses)).nonzero()[0])
        step = self._global_step - len(self._steps) + first + 1
        self._write_steps()
        raise DivergedError(f"the loss is {float(losses[first])} in step {step}; try a lower optimizer.lr")

    def _write_steps(self) -> None:
        if self._steps:
            columns = torch.stack(self._steps).T.tolist()  # the only synchronisation with the device in an epoch
            for name, values in zip(STEP_QUANTITIES[:-1], columns, strict=True):
                self._saved[name] += values
            self._saved["lr"] += self._lr
        self._steps, self._lr = [], []
        dtypes = {"lr": np.float64}
        self.run.write_steps(
            {name: np.array(values, dtypes.get(name, np.float32)) for name, values in self._saved.items()}
        )
