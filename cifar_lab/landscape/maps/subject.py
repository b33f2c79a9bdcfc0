"""A run whose landscape is looked at: its network, its images, its snapshots."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cifar_lab.config import build, saved
from cifar_lab.data.images import keyed_generator, stratified_split
from cifar_lab.data.loader import BatchLoader
from cifar_lab.landscape.maps.settings import Settings
from cifar_lab.landscape.maths.functional import NetworkLoss
from cifar_lab.machine import hardware
from cifar_lab.runs import Run, read_checkpoint
from cifar_lab.runs.labels import data_name

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from cifar_lab.data.datamodule import InMemoryDataModule

# First part of a generator's key: what the numbers are for.
_IMAGES = 3


@dataclass(frozen=True)
class Subject:
    """A run whose landscape is looked at.

    Attributes:
        label: What tells it from the others.
        run: Its folder.
        config: Its configuration.
        model: With its final weights, in training mode but for dropout, which would make the loss another at each call.
        criterion: The loss of `(logits, labels)`, without weight decay and L1.
        images: `(N, 3, H, W)`, normalised, of the training set, not augmented.
        labels: `(N,)`.
        held_out: Images and labels that it was not trained on.
        held_out_name: What those are.
        data: What a reader calls them, and how many it was trained on.
        epochs: The files of its snapshots by epoch, rising; 0 holds the initial weights.
    """

    label: str
    run: Run
    config: "DictConfig"
    model: nn.Module
    criterion: Callable[[Tensor, Tensor], Tensor]
    images: Tensor
    labels: Tensor
    held_out: tuple[Tensor, Tensor]
    held_out_name: str
    data: str
    epochs: Mapping[int, Path]

    def loss(self, part: slice = slice(None)) -> NetworkLoss:
        """The loss on its images, or on a part of them, with BatchNorm on their own statistics."""
        return NetworkLoss(self.model, self.criterion, self.images[part], self.labels[part])

    def batches(self) -> list[slice]:
        """Its images in batches of the run's size, those that are whole; all of them where none is."""
        size, count = int(self.config.batch_size), len(self.labels)
        return [slice(start, start + size) for start in range(0, count - size + 1, size)] or [slice(0, count)]

    def weights(self, epoch: int) -> dict[str, Tensor]:
        """The trainable weights of a snapshot.

        Raises:
            ValueError: It is damaged, or does not fit the network.
        """
        state, own = read_checkpoint(self.epochs[epoch]), self.loss().weights()
        check_fits(state, own, self.epochs[epoch])
        return {name: state[name].to(value) for name, value in own.items()}

    def identity(self) -> dict[str, Any]:
        """What its loss is, but for weights and images, in plain values."""
        return {"model": str(self.config.model), "loss": str(self.config.loss)}


def load(folders: Sequence[Path], settings: Settings) -> list[Subject]:
    """Load runs with their final weights and the images that they are looked at on.

    Raises:
        ValueError: A folder is no run, two are the same, there are not so many images, or the weights are missing,
            damaged or another network's.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"{', '.join(map(str, folders))}: the same run twice; name each once")
    labels = _labels(folders)
    return [_load(Run(folder), label, settings) for folder, label in zip(folders, labels, strict=True)]


def require_snapshots(subjects: Iterable[Subject]) -> None:
    """Refuse runs that have kept no weights of their epochs.

    Raises:
        ValueError: One has not.
    """
    for subject in subjects:
        if not subject.epochs:
            raise ValueError(f"{subject.run.folder} has no snapshots of its weights; train it with callbacks=snapshots")


def chosen_epochs(subject: Subject, at: str | None) -> list[int]:
    """The epochs whose snapshots are looked at.

    Args:
        subject: Has snapshots.
        at: Epochs joined by commas; None takes the first, the middle and the last.

    Raises:
        ValueError: `at` names one that there is no snapshot of.
    """
    there = list(subject.epochs)
    if at is None:
        return sorted({there[0], there[len(there) // 2], there[-1]})
    asked = [int(word) if word.strip().isdecimal() else -1 for word in at.split(",")]
    if not set(asked) <= set(there):
        raise ValueError(f"--at {at}: {subject.run.folder} has snapshots of the epochs {', '.join(map(str, there))}")
    return sorted(set(asked))


def caption(subjects: Sequence[Subject], settings: Settings, how: str) -> str:
    """What figures say of their data and of what was measured on it."""
    data = "; ".join(dict.fromkeys(subject.data for subject in subjects))
    seeds = ", ".join(dict.fromkeys(str(subject.config.seed) for subject in subjects))
    seeds = f"seed {seeds}" if len(set(seeds.split(", "))) == 1 else f"seeds {seeds}"
    return f"{data}, {seeds}\n{settings.images:,} training images (drawn with seed {settings.seed}), {how}"


def learning_rate(run: Run, epoch: int) -> float:
    """The learning rate of an epoch's last step, of the first step of all for epoch 0; NaN where none is known."""
    try:
        if not epoch:
            return float(run.steps()["lr"][0])
        metrics = run.metrics()
        return float(metrics.loc[metrics["epoch"] == epoch, "train/lr"].iloc[-1])
    except (FileNotFoundError, KeyError, IndexError):
        return float("nan")


def check_fits(state: Mapping[str, Any], weights: Mapping[str, Tensor], where: Path) -> None:
    """Refuse weights of another network.

    Raises:
        ValueError: A weight is missing, or has another shape.
    """
    for name, value in weights.items():
        if name not in state or getattr(state[name], "shape", None) != value.shape:
            raise ValueError(f"{where}: {name} is missing or of another shape; these weights are another network's")


def _load(run: Run, label: str, settings: Settings) -> Subject:
    config = saved(run, settings.allow)
    device = hardware.training_device(config.trainer.accelerator)
    hardware.keep_freed_memory(device)
    datamodule = build(config.data, augment=None)
    images, labels = _images(datamodule, "train", settings, device)
    with torch.random.fork_rng():  # what is drawn for initial weights is replaced at once
        model: nn.Module = build(config.model)
    state = run.final_state()
    check_fits(state, dict(model.named_parameters()), run.folder)
    model.load_state_dict({name: value for name, value in state.items() if name in model.state_dict()}, strict=False)
    model = model.to(device)
    for module in model.train().modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    trained = datamodule.size("train")
    part = "" if trained == datamodule.train_available else f" of {datamodule.train_available:,}"
    name = data_name(run.composition()["options"].get("data") or "unknown data")
    return Subject(
        label,
        run,
        config,
        model,
        build(config.loss).to(device),
        images,
        labels,
        _images(datamodule, "val", settings, device),
        "held-out images" if config.data.get("val_fraction") else "test images",
        f"{name}, trained on {trained:,}{part} images",
        run.snapshots(),
    )


def _images(datamodule: "InMemoryDataModule", split: str, settings: Settings, device: str) -> tuple[Tensor, Tensor]:
    """The same images of a split whenever they are asked for; of those held out all, where there are fewer."""
    loader = datamodule.train_dataloader() if split == "train" else datamodule.val_dataloader()
    available, count = datamodule.size(split), settings.images
    if split == "train" and count > available:
        raise ValueError(f"--images {count}: the run has {available:,} training images, of which to take at most all")
    count = min(count, available)
    chosen, _ = stratified_split(loader.data.labels, count, keyed_generator(_IMAGES, settings.seed, 0))
    ordered = chosen[torch.randperm(count, generator=keyed_generator(_IMAGES, settings.seed, 1))]
    (batch,) = BatchLoader(loader.data.take(ordered), count, datamodule.mean, datamodule.std)
    # Contiguous, not channels last: Hessian-vector products of VGG-A are 1.3 times as fast so on a CPU.
    return batch[0].contiguous().to(device), batch[1].to(device)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names, behind those of the folders above where these do not tell them apart."""
    places = [folder.resolve() for folder in folders]
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else [f"{place.parent.name}/{place.name}" for place in places]
