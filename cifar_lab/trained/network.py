"""A trained network, ready to be used."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from cifar_lab.config import build
from cifar_lab.data import files, lookup
from cifar_lab.data.archives import CIFAR10, Dataset
from cifar_lab.data.datamodule import CIFAR10DataModule, InMemoryDataModule
from cifar_lab.data.loader import normalise
from cifar_lab.data.views import over_views
from cifar_lab.machine import hardware
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run
from cifar_lab.runs.labels import holds_out


@dataclass(frozen=True)
class Trained:
    """A trained network with its normalisation, classes and results."""

    label: str  # the run's folder, or the file
    weights: Path  # the weight file
    run: Run | None  # the run that trained it; None for a bare weight file
    config: DictConfig | None  # the run's configuration; None for a bare weight file
    model: nn.Module  # on its device, in evaluation mode, in float32; maps normalised images to logits
    making: Mapping[str, Any]  # the option that builds the network, plain values with `_target_`
    architecture: str  # a short description of it
    mean: Sequence[float]  # per channel, subtracted from images in [0, 1]
    std: Sequence[float]  # the divisor per channel
    classes: Sequence[str]  # class names, in the order of the logits
    native: hardware.Native  # the device, precision and memory format of its computations
    facts: Mapping[str, Any]  # results of its run, by the names in `docs/run_directory.md`, such as `test/acc`
    assumed: Sequence[str]  # a line for each value that is assumed
    data_root: Path | None = None  # the folder of its data from the command line

    def logits(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to float32 logits `(N, num_classes)` on its device."""
        with torch.no_grad():
            moved = images.to(self.native.device).to(memory_format=self.native.memory_format)
            return self._forward(moved).float()

    def logits_of_pixels(self, pixels: Tensor) -> Tensor:
        """Map uint8 images `(N, 32, 32, 3)`, 0 to 255, to float32 logits `(N, num_classes)` on its device."""
        return self.logits(self.normalised(pixels))

    def class_names(self, count: int) -> list[str]:
        """Return the names of `count` logits; a logit without a class is named by its number."""
        names = [str(name) for name in self.classes[:count]]
        return names + [str(label) for label in range(len(names), count)]

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 images `(N, 32, 32, 3)`, 0 to 255, to the network's input `(N, 3, 32, 32)`."""
        return normalise(pixels, torch.tensor(self.mean), torch.tensor(self.std))

    def reestimate_batch_norm(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Estimate BatchNorm's running statistics again, as the averages over batches (arXiv:1803.05407, section 3.2).

        Args:
            batches: Normalised training images `(N, 3, 32, 32)` with their labels.

        Raises:
            ValueError: The network has no BatchNorm with running statistics.
        """
        norms = [module for module in self.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not any(norm.track_running_stats for norm in norms):
            raise UsageError(f"{self.label} has no BatchNorm; leave --reestimate-bn out")
        layout = self.native.memory_format
        update_bn((images.to(self.native.device).to(memory_format=layout) for images, _ in batches), self._forward)

    @cached_property
    def _forward(self) -> nn.Module:
        # Fabric computes in a precision as Lightning does, which gives the numbers of the run's test.
        for name in ("lightning.fabric", "lightning.pytorch"):  # either may log the precision
            logging.getLogger(name).setLevel(logging.WARNING)
        accelerator = "gpu" if self.native.device == "cuda" else self.native.device
        fabric = Fabric(accelerator=accelerator, devices=1, precision=self.native.precision)  # type: ignore[arg-type]
        return fabric.setup_module(self.model).eval()

    def datamodule(self, *, augment: bool = False, test_set: str | None = None) -> InMemoryDataModule:
        """Return the images of its training, validation and test; for a bare weight file, all of CIFAR-10.

        The folder is the one from the command line, else the run's if it exists on this machine, else
        `$CIFAR_LAB_DATA` or the user's cache.

        Args:
            augment: Augment training images as in the run.
            test_set: A different test set for CIFAR-10, see `CIFAR10DataModule`.

        Raises:
            DataError: The images are missing or damaged.
        """
        changes: dict[str, Any] = {} if test_set is None else {"test_set": test_set}
        if self._dataset is not None:
            changes["root"] = self._root
        elif self.data_root is not None and self.config is not None and "path" in self.config.data:
            changes["path"] = str(self.data_root)
        if self.config is None:
            datamodule: InMemoryDataModule = CIFAR10DataModule(mean=self.mean, std=self.std, val_fraction=0, **changes)
        else:
            changes |= {} if augment else {"augment": None}
            datamodule = build(self.config.data, **changes)
        datamodule.setup()
        return datamodule

    @property
    def data_is_here(self) -> bool:
        """Whether `datamodule()` finds its images on this machine; else it may have to download them."""
        if self._dataset is not None:
            return files.is_there(self._root, self._dataset)
        return self.config is None or lookup.is_there(self.config.data)

    @property
    def is_of_cifar10(self) -> bool:
        """Whether it was trained on CIFAR-10, which is assumed for a bare weight file."""
        return self._dataset is CIFAR10

    @property
    def _dataset(self) -> Dataset | None:
        """The published data set, whose folder may differ on this machine; None for other data."""
        return CIFAR10 if self.config is None else lookup.dataset_of(self.config.data)

    @property
    def _root(self) -> str | None:
        if self.data_root is not None:
            return str(self.data_root)
        recorded = None if self.config is None else self.config.data.root
        if recorded is not None and self._dataset is not None and files.is_there(recorded, self._dataset):
            return recorded
        return os.environ.get("CIFAR_LAB_DATA") or None

    @property
    def trained_on(self) -> str | None:
        """The option of `data` that it was trained on, if known."""
        options = self.facts.get("options") or {} if self.run is None else self.run.composition()["options"]
        return options.get("data")

    @property
    def holds_out(self) -> bool:
        """Whether its training held out images that are not the test set."""
        return self.config is not None and holds_out(self.config)

    @property
    def gives_probabilities(self) -> bool:
        """Whether its loss trained a softmax over the logits; a squared error trains the logits themselves."""
        if self.config is not None:
            return not str(self.config.loss.get("_target_")).endswith(".MSELoss")
        return (self.facts.get("options") or {}).get("loss") != "mse" and "_MSELoss_" not in self.weights.name


class Answers(NamedTuple):
    """Logits, float32 `(N, C)`, and true classes, int64 `(N,)`, on the CPU."""

    logits: Tensor
    labels: Tensor


def answer(trained: Trained, batches: Iterable[tuple[Tensor, Tensor]], tta: str | None = None) -> Answers:
    """Compute logits of batches of normalised images `(N, 3, 32, 32)` with labels, by `over_views` if `tta` is set."""
    logits, labels = [], []
    for images, of_batch in batches:
        of_images = trained.logits(images)
        if tta is not None:
            of_images = over_views(trained.logits, images.to(of_images.device), of_images, tta)
        logits.append(of_images.cpu())
        labels.append(of_batch.cpu())
    return Answers(torch.cat(logits), torch.cat(labels))


def confident_mistakes(answers: Answers, count: int) -> Tensor:
    """Return the int64 indices of at most `count` wrong answers, those of highest probability first."""
    probability, predicted = answers.logits.double().softmax(1).max(1)
    wrong = (predicted != answers.labels).nonzero()[:, 0]
    return wrong[probability[wrong].argsort(descending=True, stable=True)][:count]
