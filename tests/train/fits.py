"""Short trainings without a command: Lightning's own Trainer, silent, on a few synthetic images."""

from typing import Any

import lightning as L
import torch
from torch import nn

from cifar_lab.data.datamodule import SyntheticDataModule


def network(*between: nn.Module) -> nn.Sequential:
    """A convolution, what may come between, and a linear layer, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), *between, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


def images(num_train: int = 60, batch_size: int = 16, **options: Any) -> SyntheticDataModule:
    """A tenth of them validates: of 60 images 54 train, in batches of 16, 16, 16 and 6."""
    return SyntheticDataModule(num_train, 20, batch_size=batch_size, **options)


def fit(
    module: L.LightningModule, *callbacks: L.Callback, data: L.LightningDataModule | None = None, **options: Any
) -> None:
    """Train a module for an epoch, or as the Trainer's options say."""
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    silent |= {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    trainer = L.Trainer(**{**silent, **options}, callbacks=list(callbacks))
    trainer.fit(module, images() if data is None else data)
