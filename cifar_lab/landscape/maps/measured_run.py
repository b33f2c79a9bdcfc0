"""A run whose landscape is measured: its network, its images, its snapshots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cifar_lab.config import build, saved
from cifar_lab.data.images import keyed_generator, stratified_split
from cifar_lab.data.loader import BatchLoader
from cifar_lab.figures import Figure
from cifar_lab.landscape.maps.points import Points, digest
from cifar_lab.landscape.maths.functional import NetworkLoss
from cifar_lab.machine import hardware
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, read_checkpoint
from cifar_lab.runs.files import write_figure, write_table
from cifar_lab.runs.labels import data_words, holds_out

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from cifar_lab.data.datamodule import InMemoryDataModule

Rows = list[dict[str, Any]]
Outputs = tuple[list[Path], Rows]
"""The files that a subcommand wrote, and rows of plain values: one for each measurement, or a summary of many."""

# The first number of a generator's key: the purpose of its draws.
_IMAGES = 3


@dataclass(frozen=True)
class Settings:
    """Options of every subcommand."""

    output: Path | None  # the folder for numbers and figures; None writes none
    images: int = 500  # how many training images the loss is of
    seed: int = 0  # of the choice of images, and of random directions and vectors
    allow: Sequence[str] = ()  # packages whose components may run

    def write(self, name: str, rows: Rows, draw: Callable[[], Figure]) -> list[Path]:
        """Write a table and its figure as CSV and PNG of that name."""
        return [*self.write_table(name, rows), *self.write_figure(name, draw)]

    def write_table(self, name: str, rows: Rows) -> list[Path]:
        """Write a table as CSV, and return the file, if there is a folder."""
        return [] if self.output is None else [write_table(rows, self.output / f"{name}.csv")]

    def write_figure(self, name: str, draw: Callable[[], Figure]) -> list[Path]:
        """Write a figure as PNG, and return the file, if there is a folder."""
        return [] if self.output is None else write_figure(draw, self.output / f"{name}.png")


@dataclass(frozen=True)
class MeasuredRun:
    """A run whose landscape is measured."""

    settings: Settings
    label: str  # tells it from the others
    run: Run
    config: "DictConfig"
    # with its final weights, in training mode but for dropout, which would make the loss another at each call
    model: nn.Module
    criterion: Callable[[Tensor, Tensor], Tensor]  # the loss of `(logits, labels)`, without weight decay and L1
    images: Tensor  # `(N, 3, H, W)`, normalised, of the training set, not augmented
    labels: Tensor  # `(N,)`
    held_out: tuple[Tensor, Tensor]  # images and labels that it was not trained on
    held_out_name: str  # their name for readers
    data: str  # its data for readers, and the number of training images
    epochs: Mapping[int, Path]  # the files of its snapshots by epoch, rising; 0 holds the initial weights

    def loss(self, part: slice = slice(None)) -> NetworkLoss:
        """The loss on its images, or on a part of them, with BatchNorm on their own statistics."""
        return NetworkLoss(self.model, self.criterion, self.images[part], self.labels[part])

    def batches(self) -> list[slice]:
        """Its images in whole batches of the run's size; all of them if there are fewer."""
        size, count = int(self.config.batch_size), len(self.labels)
        return [slice(start, start + size) for start in range(0, count - size + 1, size)] or [slice(0, count)]

    def weights(self, epoch: int) -> dict[str, Tensor]:
        """The trainable weights of a snapshot.

        Raises:
            ValueError: It is damaged, or does not fit the network.
        """
        path, own = self.epochs[epoch], self.loss().weights()
        state = read_checkpoint(path)
        check_fits(state, own, path)
        return {name: state[name].to(value) for name, value in own.items()}

    def snapshot_epochs(self) -> list[int]:
        """The epochs of its snapshots, rising.

        Raises:
            ValueError: There are none.
        """
        if not self.epochs:
            raise UsageError(f"{self.run.folder} has no snapshots of its weights; train it with callbacks=snapshots")
        return list(self.epochs)

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch's last step, for epoch 0 of the first step of all; NaN if unknown."""
        try:
            if not epoch:
                return float(self.run.steps()["lr"][0])
            metrics = self.run.metrics()
            return float(metrics.loc[metrics["epoch"] == epoch, "train/lr"].iloc[-1])
        except (FileNotFoundError, KeyError, IndexError):
            return float("nan")

    def points(
        self,
        kind: str,
        count: int,
        identity: Mapping[str, Any],
        *tensors: Mapping[str, Tensor],
        part: slice = slice(None),
    ) -> Points:
        """The points of a computation on a part of its images.

        The values of `identity` and the `tensors` tell it from others, besides network, loss and images.
        """
        known = {"model": str(self.config.model), "loss": str(self.config.loss), **identity}
        images = {"images": self.images[part], "labels": self.labels[part]}
        folder = None if self.settings.output is None else self.settings.output / "points"
        return Points(folder, kind, digest(known, images, *tensors), count)


def load(folders: Sequence[Path], settings: Settings) -> list[MeasuredRun]:
    """Load runs with their final weights and the images that they are measured on.

    Raises:
        ValueError: A folder is not a run, two are the same, there are not so many images, or the weights are missing,
            damaged or another network's.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(folders):
        raise UsageError(f"{', '.join(map(str, folders))}: the same run twice; name each once")
    labels = [place.name for place in places]
    if len(set(labels)) < len(labels):
        labels = [f"{place.parent.name}/{place.name}" for place in places]
    return [_load(Run(folder), label, settings) for folder, label in zip(folders, labels, strict=True)]


def at_epochs(measured_runs: Sequence[MeasuredRun], at: str | None) -> list[tuple[MeasuredRun, int]]:
    """Each run with each epoch of `--at`, joined by commas; None takes the first snapshot, the middle and the last.

    Raises:
        ValueError: A run has no snapshots, or none of an epoch of `at`.
    """
    places: list[tuple[MeasuredRun, int]] = []
    for measured in measured_runs:
        there = measured.snapshot_epochs()
        wanted = {there[0], there[len(there) // 2], there[-1]}
        if at is not None:
            wanted = {int(word) if word.strip().isdecimal() else -1 for word in at.split(",")}
        if not wanted <= set(there):
            epochs = ", ".join(map(str, there))
            raise UsageError(f"--at {at}: {measured.run.folder} has snapshots of the epochs {epochs}")
        places += [(measured, epoch) for epoch in sorted(wanted)]
    return places


def caption(measured_runs: Sequence[MeasuredRun], how: str) -> str:
    """A figure's title: the data of its runs, and how they were measured."""
    settings = measured_runs[0].settings
    data = "; ".join(dict.fromkeys(measured.data for measured in measured_runs))
    seeds = list(dict.fromkeys(str(measured.config.seed) for measured in measured_runs))
    drawn_by = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return f"{data}, {drawn_by}\n{settings.images:,} training images (drawn with seed {settings.seed}), {how}"


def check_fits(state: Mapping[str, Any], weights: Mapping[str, Tensor], where: Path) -> None:
    """Refuse weights of another network.

    Raises:
        ValueError: A weight is missing, or has another shape.
    """
    for name, value in weights.items():
        if name not in state or getattr(state[name], "shape", None) != value.shape:
            raise UsageError(
                f"{where}: {name} is missing or has a different shape; these weights are of a different network"
            )


def _load(run: Run, label: str, settings: Settings) -> MeasuredRun:
    config = saved(run, settings.allow)
    device = hardware.training_device(config.trainer.accelerator)
    hardware.keep_freed_memory(device)
    datamodule = build(config.data, augment=None)
    images, labels = _images(datamodule, "train", settings, device)
    with torch.random.fork_rng():  # the drawn initial weights are replaced at once
        model: nn.Module = build(config.model)
    state = run.final_state()
    check_fits(state, dict(model.named_parameters()), run.folder)
    model.load_state_dict({name: value for name, value in state.items() if name in model.state_dict()}, strict=False)
    model = model.to(device)
    for module in model.train().modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    trained, available = datamodule.size("train"), datamodule.train_available
    part = "" if trained == available else f" of {available:,}"
    composition = run.composition()
    name = data_words(composition["options"].get("data") or "unknown data", composition["config"])
    return MeasuredRun(
        settings,
        label,
        run,
        config,
        model,
        build(config.loss).to(device),
        images,
        labels,
        _images(datamodule, "val", settings, device),
        "held-out images" if holds_out(config) else "test images",
        f"{name}, trained on {trained:,}{part} images",
        run.snapshots(),
    )


def _images(datamodule: "InMemoryDataModule", split: str, settings: Settings, device: str) -> tuple[Tensor, Tensor]:
    """The same images of a split at each call; of those held out all, if there are fewer."""
    loader = datamodule.train_dataloader() if split == "train" else datamodule.val_dataloader()
    available, count = datamodule.size(split), settings.images
    if split == "train" and count > available:
        raise UsageError(f"--images {count}: the run has only {available:,} training images")
    count = min(count, available)
    chosen, _ = stratified_split(loader.data.labels, count, keyed_generator(_IMAGES, settings.seed, 0))
    ordered = chosen[torch.randperm(count, generator=keyed_generator(_IMAGES, settings.seed, 1))]
    (batch,) = BatchLoader(loader.data.take(ordered), count, datamodule.mean, datamodule.std)
    # Contiguous, not channels last: Hessian-vector products of VGG-A are 1.3 times as fast so on a CPU.
    return batch[0].contiguous().to(device), batch[1].to(device)
