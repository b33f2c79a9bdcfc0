"""Short trainings without a command: Lightning's own Trainer, silent, on a few synthetic images."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from cifar_lab.data.datamodule import SyntheticDataModule


def network(*between: nn.Module) -> nn.Sequential:
    """Return a convolution, the given modules, and a linear layer, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), *between, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


def images(num_train: int = 60, batch_size: int = 16, **options: Any) -> SyntheticDataModule:
    """A tenth of the images is held out: of 60 images 54 train, in batches of 16, 16, 16 and 6."""
    return SyntheticDataModule(num_train, 20, batch_size=batch_size, **options)


def fit(
    module: L.LightningModule, *callbacks: L.Callback, data: L.LightningDataModule | None = None, **options: Any
) -> None:
    """Train a module for one epoch, or as the Trainer options say."""
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    silent |= {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    silent["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    trainer = L.Trainer(**{**silent, **options}, callbacks=list(callbacks))
    trainer.fit(module, images() if data is None else data)


class Watch(L.Callback):
    """Records a Classifier's values per step, rate and metrics per epoch, and weights at each of these times."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.rates: list[float] = []
        self.epochs: list[dict[str, float]] = []
        self.weights: dict[str, list[dict[str, Tensor]]] = {"step": [], "epoch": [], "validation": []}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if trainer.current_epoch:
            self.on_fit_end(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        names = ("step_loss", "grad_norm", "first_conv_grad_norm", "step_lr")
        self.steps.append({name: float(getattr(pl_module, name)) for name in names})
        self._keep("step", pl_module)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        self._keep("validation", pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._keep("epoch", pl_module)

    def on_fit_end(self, trainer: L.Trainer, *_: object) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def _keep(self, when: str, module: Any) -> None:
        self.weights[when].append({name: each.detach().clone() for name, each in module.model.state_dict().items()})
