"""A run whose landscape is measured: network, images and snapshots."""

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
"""Files that a subcommand wrote, and rows of plain values: one per measurement, or a summary of many."""

# First part of a generator's key: the purpose of the random numbers.
_IMAGES = 3


@dataclass(frozen=True)
class Settings:
    """Options of every subcommand."""

    output: Path | None  # folder for tables and figures; None writes none
    images: int = 500  # number of training images to compute the loss on
    seed: int = 0  # seed of the choice of images and of random directions and vectors
    allow: Sequence[str] = ()  # packages whose components may run

    def write(self, name: str, rows: Rows, draw: Callable[[], Figure]) -> list[Path]:
        """Write a table and its figure as `name`, CSV and PNG, and return the files."""
        return [*self.write_table(name, rows), *self.write_figure(name, draw)]

    def write_table(self, name: str, rows: Rows) -> list[Path]:
        """Write a table as CSV and return its file; write nothing without an output folder."""
        return [] if self.output is None else [write_table(rows, self.output / f"{name}.csv")]

    def write_figure(self, name: str, draw: Callable[[], Figure]) -> list[Path]:
        """Write a figure as PNG and return its file; write nothing without an output folder."""
        return [] if self.output is None else write_figure(draw, self.output / f"{name}.png")


@dataclass(frozen=True)
class MeasuredRun:
    """A run whose landscape is measured."""

    settings: Settings
    label: str  # unique among the measured runs
    run: Run
    config: "DictConfig"
    # final weights, in training mode except for dropout, which would change the loss between calls
    model: nn.Module
    criterion: Callable[[Tensor, Tensor], Tensor]  # loss of `(logits, labels)`, without weight decay and L1
    images: Tensor  # normalised training images `(N, 3, H, W)`, not augmented
    labels: Tensor  # `(N,)`
    held_out: tuple[Tensor, Tensor]  # images and labels that were not trained on
    held_out_name: str  # label of the held-out images
    data: str  # label of the data, with the number of training images
    epochs: Mapping[int, Path]  # snapshot files by epoch, ascending; epoch 0 is the initial weights

    def loss(self, part: slice = slice(None)) -> NetworkLoss:
        """Return the loss on all or part of the images, with BatchNorm on the statistics of these images."""
        return NetworkLoss(self.model, self.criterion, self.images[part], self.labels[part])

    def batches(self) -> list[slice]:
        """Return slices of the images: whole batches of the run's batch size, or all images if there are fewer."""
        size, count = int(self.config.batch_size), len(self.labels)
        return [slice(start, start + size) for start in range(0, count - size + 1, size)] or [slice(0, count)]

    def weights(self, epoch: int) -> dict[str, Tensor]:
        """Load the trainable weights of a snapshot.

        Raises:
            ValueError: The snapshot is damaged or does not fit the network.
        """
        path, own = self.epochs[epoch], self.loss().weights()
        state = read_checkpoint(path)
        check_fits(state, own, path)
        return {name: state[name].to(value) for name, value in own.items()}

    def snapshot_epochs(self) -> list[int]:
        """Return the epochs of the snapshots, ascending.

        Raises:
            ValueError: There are no snapshots.
        """
        if not self.epochs:
            raise UsageError(f"{self.run.folder} has no snapshots of its weights; train it with callbacks=snapshots")
        return list(self.epochs)

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch's last step, of the first step for epoch 0; NaN if unknown."""
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
        """Return the points of a computation on part of the images.

        The computation is identified by network, loss, images, the values of `identity` and the `tensors`.
        """
        known = {"model": str(self.config.model), "loss": str(self.config.loss), **identity}
        images = {"images": self.images[part], "labels": self.labels[part]}
        folder = None if self.settings.output is None else self.settings.output / "points"
        return Points(folder, kind, digest(known, images, *tensors), count)


def load(folders: Sequence[Path], settings: Settings) -> list[MeasuredRun]:
    """Load runs with their final weights and the images to measure them on.

    Raises:
        ValueError: A folder is not a run or is named twice, a run has too few images, or the weights are missing,
            damaged or do not fit the network.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(folders):
        raise UsageError(f"{', '.join(map(str, folders))}: a run is named twice; name each run once")
    labels = [place.name for place in places]
    if len(set(labels)) < len(labels):
        labels = [f"{place.parent.name}/{place.name}" for place in places]
    return [_load(Run(folder), label, settings) for folder, label in zip(folders, labels, strict=True)]


def at_epochs(measured_runs: Sequence[MeasuredRun], at: str | None) -> list[tuple[MeasuredRun, int]]:
    """Pair each run with each epoch of `at`, joined by commas; None uses the first, middle and last snapshot.

    Raises:
        ValueError: A run lacks the snapshot of an epoch.
    """
    places: list[tuple[MeasuredRun, int]] = []
    for measured in measured_runs:
        there = measured.snapshot_epochs()
        wanted = {there[0], there[len(there) // 2], there[-1]}
        if at is not None:
            wanted = {int(word) if word.strip().isdecimal() else -1 for word in at.split(",")}
        if not wanted <= set(there):
            epochs = ", ".join(map(str, there))
            raise UsageError(f"--at {at}: {measured.run.folder} only has snapshots of epochs {epochs}")
        places += [(measured, epoch) for epoch in sorted(wanted)]
    return places


def caption(measured_runs: Sequence[MeasuredRun], how: str) -> str:
    """Return a figure's title: the data of its runs, and how they were measured."""
    settings = measured_runs[0].settings
    data = "; ".join(dict.fromkeys(measured.data for measured in measured_runs))
    seeds = list(dict.fromkeys(str(measured.config.seed) for measured in measured_runs))
    drawn_by = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return f"{data}, {drawn_by}\n{settings.images:,} training images (drawn with seed {settings.seed}), {how}"


def check_fits(state: Mapping[str, Any], weights: Mapping[str, Tensor], where: Path) -> None:
    """Check that `state` has all `weights` with the same shapes.

    Raises:
        ValueError: A weight is missing or has a different shape.
    """
    for name, value in weights.items():
        if name not in state or getattr(state[name], "shape", None) != value.shape:
            raise UsageError(f"{where}: {name} is missing or has a different shape; the weights are of another network")


def _load(run: Run, label: str, settings: Settings) -> MeasuredRun:
    config = saved(run, settings.allow)
    device = hardware.training_device(config.trainer.accelerator)
    hardware.keep_freed_memory(device)
    datamodule = build(config.data, augment=None)
    images, labels = _images(datamodule, "train", settings, device)
    with torch.random.fork_rng():  # the initial weights are replaced below
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
    """Return the same images of a split on each call; all held-out images if there are fewer than requested."""
    loader = datamodule.train_dataloader() if split == "train" else datamodule.val_dataloader()
    available, count = datamodule.size(split), settings.images
    if split == "train" and count > available:
        raise UsageError(f"--images {count}: the run has only {available:,} training images")
    count = min(count, available)
    chosen, _ = stratified_split(loader.data.labels, count, keyed_generator(_IMAGES, settings.seed, 0))
    ordered = chosen[torch.randperm(count, generator=keyed_generator(_IMAGES, settings.seed, 1))]
    (batch,) = BatchLoader(loader.data.take(ordered), count, datamodule.mean, datamodule.std)
    # On a CPU, Hessian-vector products of VGG-A are 1.3 times as fast in contiguous memory as in channels_last.
    return batch[0].contiguous().to(device), batch[1].to(device)
