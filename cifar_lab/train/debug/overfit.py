"""Checks that a network can memorise a few images: trains on the same batches until the loss is near its minimum."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine.interruption import Interruption
from cifar_lab.train.assembly import make_trainer, trainer_options
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.callbacks import Stopping
from cifar_lab.train.classifier import Batch, Classifier
from cifar_lab.train.fitting import prepared

_LINE_EVERY = 10  # passes
_LARGE_LOGIT = 50.0  # beyond it a softmax is 1


def overfit(config: DictConfig, attempt: Attempt) -> dict[str, Any]:
    """Train on `debug.batches` fixed batches for at most `debug.passes` passes, and print how far the loss falls.

    Raises:
        RunFailedError: An image is still misclassified, or the loss is above its minimum by more than the fraction
            `debug.near` of the initial excess.
    """
    with prepared(config, attempt) as (classifier, datamodule, native, _):
        datamodule.augment = None
        classifier.scheduler_options = None
        loader = datamodule.train_dataloader()
        batches = [batch for _, batch in zip(range(config.debug.batches), loader, strict=False)]
        memory = _Memory(classifier, batches, config.debug.near, attempt.interruption)
        options = {**trainer_options(config, native), "max_epochs": config.debug.passes, "limit_val_batches": 0}
        callbacks = [Stopping(attempt.interruption), memory, *attempt.callbacks]
        trainer = make_trainer(**options, callbacks=callbacks, logger=False, enable_checkpointing=False)
        trainer.fit(classifier, _Fixed(batches), datamodule.val_dataloader())
        how = memory.described(trainer.global_step)
        if not memory.is_near:
            raise RunFailedError(
                f"debug=overfit: {how}; a network that cannot memorise a few images will not learn the others: look "
                "for wrong labels, a loss that does not fit the network's output, weights without a gradient, and a "
                "learning rate that is too low or too high"
            )
        print(f"debug=overfit: {how}; the network can learn", flush=True)
        return {"loss": memory.losses[-1], "steps": trainer.global_step}


class _Fixed:
    """The same batches in every epoch. Lightning would treat a list as a list of loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Memory(L.Callback):
    """Measures the loss on the batches after each pass, in evaluation mode, and stops when it is small enough."""

    def __init__(self, classifier: Classifier, batches: list[Batch], near: float, interruption: Interruption) -> None:
        self.batches = batches
        self.near = near
        self.interruption = interruption
        self.least = _least(classifier.loss, batches)
        self.losses: list[float] = []
        self.accuracy = math.nan

    @property
    def is_near(self) -> bool:
        """Whether the loss has fallen far enough and every image is classified correctly."""
        return self.accuracy == 1 and self.losses[-1] - self.least <= self.near * (self.losses[0] - self.least)

    def described(self, steps: int) -> str:
        """Describe how far the loss has fallen."""
        images = sum(len(labels) for _, labels in self.batches)
        return (
            f"the loss on {images:,} images fell from {self.losses[0]:.4g} to {self.losses[-1]:.4g} in {steps} steps "
            f"(its smallest value is {self.least:.4g}), accuracy {self.accuracy:.2%}"
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the initial loss."""
        self._measure(trainer, pl_module)

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop if a signal was received."""
        self.interruption.check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the loss, print it every 10 passes, and stop if it is small enough or not finite."""
        self._measure(trainer, pl_module)
        passes, loss = trainer.current_epoch + 1, self.losses[-1]
        if passes % _LINE_EVERY == 0:
            print(f"pass {passes}/{trainer.max_epochs}  loss {loss:.4f}  acc {self.accuracy:.2%}", flush=True)
        trainer.should_stop = self.is_near or not math.isfinite(loss)

    @torch.no_grad()
    def _measure(self, trainer: L.Trainer, classifier: Classifier) -> None:
        classifier.eval()
        sums = torch.zeros(3)
        for batch in self.batches:
            images, labels = (part.to(classifier.device) for part in batch)
            with trainer.precision_plugin.forward_context():
                logits = classifier(trainer.precision_plugin.convert_input(images))
            right = (logits.argmax(1) == labels).sum()
            sums += torch.tensor([float(classifier.loss(logits, labels)) * len(labels), float(right), len(labels)])
        classifier.train()
        loss, right, count = sums.tolist()
        self.losses.append(loss / count)
        self.accuracy = right / count


def _least(loss: Callable[[Tensor, Tensor], Tensor], batches: list[Batch]) -> float:
    """Return the minimum of the loss over logits proportional to one-hot labels; label smoothing keeps it above 0."""
    labels = torch.cat([labels for _, labels in batches])
    one_hot = nn.functional.one_hot(labels).float()
    return float(minimize_scalar(lambda scale: float(loss(scale * one_hot, labels)), bounds=(0, _LARGE_LOGIT)).fun)
