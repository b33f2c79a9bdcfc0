"""Training loops written by hand, from the report's way to the fastest that we know of.

Each trains what a configuration describes for as long as it is asked, yields after every step the step's loss, and
tells `watch` of the step's parts. They clip gradients as the configuration says and measure nothing else.
"""

import itertools
from collections.abc import Callable, Iterator
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
from cifar_lab.optimizers import make_optimizer


@dataclass(frozen=True)
class Variant:
    """How the fastest loop computes; `auto` and None are what is fastest as far as we know.

    Attributes:
        precision: `auto`, `32-true` or `bf16-mixed`.
        memory_format: `auto`, `channels_last` or `contiguous`.
        implementation: The optimizer's: `fused`, `foreach` or `for_loop`.
        compiles: Whether the network is compiled.
    """

    precision: str = "auto"
    memory_format: str = "auto"
    implementation: str | None = None
    compiles: bool = False


@dataclass(frozen=True)
class Parts:
    """What all loops train, with the same first weights."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[..., Optimizer]
    data: InMemoryDataModule
    grad_clip: float

    @classmethod
    def of(cls, config: DictConfig) -> "Parts":
        """Make them, with weights as `cifar_lab.train` draws them."""
        from lightning import seed_everything

        data = build(config.data)
        seed_everything(config.seed, verbose=False)
        data.setup()
        return cls(build(config.model), build(config.loss), build(config.optimizer), data, config.grad_clip or 0.0)


def report(config: DictConfig, watch: Watch) -> Iterator[Tensor]:
    """The report's way: PIL transforms image by image in two worker processes, float32, channels first."""
    parts = Parts.of(config)
    device = hardware.training_device(config.trainer.accelerator)
    model = parts.model.to(device)
    optimizer = parts.optimizer(model.parameters())
    batches: BatchLoader = parts.data.train_dataloader()
    sampler = _Order(batches)
    images = _PILImages(batches.data, _pil_transform(config))
    loader = DataLoader(images, config.batch_size, sampler=sampler, num_workers=2, pin_memory=device == "cuda")
    watch.wait(hardware.Native(device, "32-true", torch.contiguous_format))
    for epoch in itertools.count():
        sampler.epoch = epoch
        for index, batch in enumerate(loader):
            pixels, labels = (part.to(device) for part in batch)
            watch.begin(epoch, index)
            yield _step(parts, model, optimizer, pixels, labels, watch)


def plain(config: DictConfig, watch: Watch) -> Iterator[Tensor]:
    """Batches from tensors in memory, float32, channels first, torch's defaults for all else."""
    parts = Parts.of(config)
    device = hardware.training_device(config.trainer.accelerator)
    model = parts.model.to(device)
    optimizer = parts.optimizer(model.parameters())
    loader = _loader(parts, device)
    watch.wait(hardware.Native(device, "32-true", torch.contiguous_format))
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        for index, (images, labels) in enumerate(loader):
            watch.begin(epoch, index)
            yield _step(parts, model, optimizer, images.contiguous(), labels, watch)


def _step(parts: Parts, model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor, watch: Watch) -> Tensor:
    loss = parts.loss(model(images), labels)
    watch.mark("forward")
    optimizer.zero_grad()
    loss.backward()
    watch.mark("backward")
    if parts.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), parts.grad_clip)
    optimizer.step()
    watch.mark("optimizer")
    return loss


def best(config: DictConfig, watch: Watch, variant: Variant | None = None) -> Iterator[Tensor]:
    """As fast as we can: precision and layout of the hardware, a fused optimizer, nothing in the loop but the step."""
    variant = variant or Variant()
    parts = Parts.of(config)
    native = hardware.choose(config.trainer.accelerator, variant.precision, variant.memory_format)
    native = native.suited_to(parts.model)
    hardware.keep_freed_memory(native.device)
    model = parts.model.to(native.device).to(memory_format=native.memory_format)
    weights = list(model.parameters())
    chosen = {name: name == variant.implementation for name in ("fused", "foreach")} if variant.implementation else {}
    optimizer = parts.optimizer(weights, **chosen) if chosen else make_optimizer(parts.optimizer, weights)[0]
    if variant.compiles:
        from torch._inductor import config as inductor

        inductor.fallback_random = True  # so that dropout draws what the other loops draw
        model.compile(dynamic=False)
    loader, loss_of = _loader(parts, native.device), parts.loss
    mixed = torch.autocast(native.device, torch.bfloat16, enabled=native.precision == "bf16-mixed")
    watch.wait(native)
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        for index, (images, labels) in enumerate(loader):
            watch.begin(epoch, index)
            with mixed:
                logits = model(images.to(memory_format=native.memory_format))
            loss = loss_of(logits.float(), labels)
            watch.mark("forward")
            optimizer.zero_grad()
            loss.backward()
            watch.mark("backward")
            if parts.grad_clip:
                nn.utils.clip_grad_norm_(weights, parts.grad_clip)
            optimizer.step()
            watch.mark("optimizer")
            yield loss


def _loader(parts: Parts, device: str) -> BatchLoader:
    """The training batches, made on the device."""
    return parts.data.train_dataloader().to(torch.device(device))


class _PILImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them."""

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
    """Each epoch's order of the images, the other loops' own."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self.loader.order(self.epoch).tolist())

    def __len__(self) -> int:
        return len(self.loader.data.labels)


def _pil_transform(config: DictConfig) -> Callable[[Any], Tensor]:
    """Torchvision's transforms that do image by image what `augment` does to a batch.

    Raises:
        ValueError: The report has none for it.
    """
    name = str(config.augment.get("_target_", "")).rpartition(".")[2]
    crop_and_flip = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    known: dict[str, list[Any]] = {
        "identity": [],
        "flip_crop": crop_and_flip,
        "randaugment": [*crop_and_flip, transforms.RandAugment()],
    }
    if name not in known:
        raise ValueError(f"augment={name}: the report's loop knows {', '.join(known)}")
    to_numbers = [transforms.ToTensor(), transforms.Normalize(list(config.data.mean), list(config.data.std))]
    return transforms.Compose([*known[name], *to_numbers])
