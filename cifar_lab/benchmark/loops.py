"""Training loops written by hand, from the report's way to the fastest that we know of.

Each is a generator that trains what a configuration describes, yields each step's loss, and marks the parts of a step
on its `watch`. They clip gradients as the configuration says and measure nothing else.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from cifar_lab.benchmark.watch import Watch
from cifar_lab.config import build
from cifar_lab.data.datamodule import InMemoryDataModule
from cifar_lab.data.images import LabelledImages
from cifar_lab.data.loader import BatchLoader
from cifar_lab.machine import hardware
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.optimizers import make_optimizer
from cifar_lab.train.assembly import make_classifier


@dataclass(frozen=True)
class Variant:
    """How the fastest loop computes; `auto` and None are the fastest choice that we know of."""

    precision: str = "auto"  # `auto`, `32-true` or `bf16-mixed`
    memory_format: str = "auto"  # `auto`, `channels_last` or `contiguous`
    implementation: str | None = None  # the optimizer's: `fused`, `foreach` or `for_loop`
    compiles: bool = False  # whether the network is compiled


@dataclass(frozen=True)
class Parts:
    """What all loops train, from the same initial weights."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[..., Optimizer]
    data: InMemoryDataModule
    grad_clip: float

    @classmethod
    def of(cls, config: DictConfig) -> "Parts":
        """Make them, with initial weights as `cifar_lab.train` draws them."""
        from lightning import seed_everything

        data = build(config.data)
        seed_everything(config.seed, verbose=False)
        made = make_classifier(config, data, hardware.Native("cpu", "32-true", torch.contiguous_format))
        return cls(made.model, made.loss, made.optimizer_factory, data, config.grad_clip or 0.0)


def report(config: DictConfig, watch: Watch) -> Iterator[Tensor]:
    """The report's way: PIL transforms image by image in two worker processes, float32, channels first."""
    parts = Parts.of(config)
    device = hardware.training_device(config.trainer.accelerator)
    batches: BatchLoader = parts.data.train_dataloader()
    sampler = _Order(batches)
    images = _PILImages(batches.data, pil_transforms(config))
    loader = DataLoader(images, config.batch_size, sampler=sampler, num_workers=2, pin_memory=device == "cuda")

    def epochs() -> Iterator[Iterable[list[Tensor]]]:
        for sampler.epoch in itertools.count():
            yield ([part.to(device) for part in batch] for batch in loader)

    model = parts.model.to(device)
    native = hardware.Native(device, "32-true", torch.contiguous_format)
    yield from _train(parts, model, parts.optimizer(model), epochs(), native, watch)


def plain(config: DictConfig, watch: Watch) -> Iterator[Tensor]:
    """Batches from tensors in memory, float32, channels first, torch's defaults for all else."""
    parts = Parts.of(config)
    device = hardware.training_device(config.trainer.accelerator)
    model = parts.model.to(device)
    native = hardware.Native(device, "32-true", torch.contiguous_format)
    optimizer = parts.optimizer(model)
    yield from _train(
        parts, lambda images: model(images.contiguous()), optimizer, _epochs(parts, device), native, watch
    )


def best(config: DictConfig, watch: Watch, variant: Variant | None = None) -> Iterator[Tensor]:
    """As fast as we can: precision and layout of the hardware, a fused optimizer, nothing in the loop but the step."""
    variant = variant or Variant()
    parts = Parts.of(config)
    native = hardware.choose(config.trainer.accelerator, variant.precision, variant.memory_format)
    native = native.suited_to(parts.model)
    hardware.keep_freed_memory(native.device)
    model = parts.model.to(native.device).to(memory_format=native.memory_format)
    if variant.implementation:
        chosen = {name: name == variant.implementation for name in ("fused", "foreach")}
        optimizer = parts.optimizer(model, **chosen)
    else:
        optimizer, *_ = make_optimizer(parts.optimizer, model)
    if variant.compiles:
        from torch._inductor import config as inductor

        inductor.fallback_random = True  # dropout draws what it draws in the other loops
        model.compile(dynamic=False)
    mixed = torch.autocast(native.device, torch.bfloat16, enabled=native.precision == "bf16-mixed")

    def forward(images: Tensor) -> Tensor:
        with mixed:
            logits = model(images.to(memory_format=native.memory_format))
        return logits.float()

    yield from _train(parts, forward, optimizer, _epochs(parts, native.device), native, watch)


def _epochs(parts: Parts, device: str) -> Iterator[BatchLoader]:
    """Batches made on the device, for each epoch."""
    loader = parts.data.train_dataloader().to(torch.device(device))
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        yield loader


def _train(
    parts: Parts,
    forward: Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    epochs: Iterable[Iterable[Sequence[Tensor]]],
    native: hardware.Native,
    watch: Watch,
) -> Iterator[Tensor]:
    weights = list(parts.model.parameters())
    loss_of, grad_clip = parts.loss, parts.grad_clip
    watch.wait(native)
    for epoch, batches in enumerate(epochs):
        for index, (images, labels) in enumerate(batches):
            watch.begin(epoch, index)
            loss = loss_of(forward(images), labels)
            watch.mark("forward")
            optimizer.zero_grad()
            loss.backward()
            watch.mark("backward")
            if grad_clip:
                nn.utils.clip_grad_norm_(weights, grad_clip)
            optimizer.step()
            watch.mark("optimizer")
            yield loss


class _PILImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets return them."""

    def __init__(self, data: LabelledImages, transform: Callable[[Any], Tensor]) -> None:
        self.images = data.images.numpy()
        self.labels = data.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class _Order(Sampler[int]):
    """Each epoch's order of the images, the same as in the other loops."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self.loader.order(self.epoch).tolist())

    def __len__(self) -> int:
        return len(self.loader.data.labels)


def pil_transforms(config: DictConfig) -> Callable[[Any], Tensor]:
    """Torchvision's transforms of an image for the option `augment`; raises `ValueError` if the report has none."""
    name = str(config.augment.get("_target_", "")).rpartition(".")[2]
    crop_and_flip = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    known: dict[str, list[Any]] = {
        "identity": [],
        "flip_crop": crop_and_flip,
        "randaugment": [*crop_and_flip, transforms.RandAugment()],
    }
    if name not in known:
        raise UsageError(f"augment={name}: the report's loop knows {', '.join(known)}")
    to_numbers = [transforms.ToTensor(), transforms.Normalize(list(config.data.mean), list(config.data.std))]
    return transforms.Compose([*known[name], *to_numbers])
