"""Hand-written training loops, from the report's way to the fastest one we know.

Each loop is a generator that trains a configuration, yields the loss of each step, and marks the parts of a step on its
`watch`. It clips gradients as configured and computes no metrics.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from cifar_lab.benchmark.pil import Order, PILImages, pil_transforms
from cifar_lab.benchmark.watch import Watch
from cifar_lab.config import build
from cifar_lab.data.datamodule import InMemoryDataModule
from cifar_lab.data.loader import BatchLoader
from cifar_lab.machine import hardware
from cifar_lab.optimizers import make_optimizer, make_scheduler
from cifar_lab.train.assembly import make_classifier
from cifar_lab.train.callbacks import Lookahead


@dataclass(frozen=True)
class Variant:
    """How the fastest loop computes; `auto` and None select the fastest known choice."""

    precision: str = "auto"  # `auto`, `32-true` or `bf16-mixed`
    memory_format: str = "auto"  # `auto`, `channels_last` or `contiguous`
    implementation: str | None = None  # the optimizer's: `fused`, `foreach` or `for_loop`
    compiles: bool = False  # whether the network is compiled


@dataclass(frozen=True)
class Parts:
    """The parts that all loops train, from the same initial weights."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[..., Optimizer]
    data: InMemoryDataModule
    grad_clip: float
    schedule: Mapping[str, Any] | None  # Lightning's dictionary, whose `scheduler` is called with the optimizer
    seed: int
    slow: "SlowWeights | None"  # for lookahead; other averages do not change the trained weights

    @classmethod
    def of(cls, config: DictConfig) -> "Parts":
        """Build the parts, with the initial weights that `cifar_lab.train` draws."""
        from lightning import seed_everything

        data = build(config.data)
        seed_everything(config.seed, verbose=False)
        made = make_classifier(config, data, hardware.Native("cpu", "32-true", torch.contiguous_format))
        averaging = build(config.averaging)
        steps = math.ceil(config.epochs * data.steps_per_epoch)
        slow = SlowWeights(made.model, averaging, steps) if isinstance(averaging, Lookahead) else None
        parts = made.model, made.loss, made.optimizer_factory, data
        return cls(*parts, config.grad_clip or 0.0, made.scheduler_options, config.seed, slow)


def report(config: DictConfig, watch: Watch) -> Iterator[Tensor]:
    """Train the report's way: PIL transforms per image in two worker processes, float32, channels first."""
    parts = Parts.of(config)
    device = hardware.training_device(config.trainer.accelerator)
    batches: BatchLoader = parts.data.train_dataloader()
    sampler = Order(batches)
    images = PILImages(batches.data, pil_transforms(config, parts.data.mean, parts.data.std))
    loader = DataLoader(images, config.batch_size, sampler=sampler, num_workers=2, pin_memory=device == "cuda")

    def epochs() -> Iterator[Iterable[list[Tensor]]]:
        for sampler.epoch in itertools.count():
            yield ([part.to(device) for part in batch] for batch in loader)

    model = parts.model.to(device)
    native = hardware.Native(device, "32-true", torch.contiguous_format)
    yield from _train(parts, model, parts.optimizer(model), epochs(), native, watch)


def plain(config: DictConfig, watch: Watch) -> Iterator[Tensor]:
    """Train on batches from tensors in memory, in float32 and channels first, with torch's defaults otherwise."""
    parts = Parts.of(config)
    device = hardware.training_device(config.trainer.accelerator)
    model = parts.model.to(device)
    native = hardware.Native(device, "32-true", torch.contiguous_format)
    optimizer = parts.optimizer(model)
    yield from _train(
        parts, lambda images: model(images.contiguous()), optimizer, _epochs(parts, device), native, watch
    )


def best(
    config: DictConfig, watch: Watch, variant: Variant | None = None, parts: Parts | None = None
) -> Iterator[Tensor]:
    """Train as fast as possible: the hardware's precision and layout, a fused optimizer, only the step in the loop."""
    variant = variant or Variant()
    parts = parts or Parts.of(config)
    native = native_of(config, parts, variant)
    hardware.keep_freed_memory(native.device)
    model = parts.model.to(native.device).to(memory_format=native.memory_format)
    if variant.implementation:
        chosen = {name: name == variant.implementation for name in ("fused", "foreach")}
        optimizer = parts.optimizer(model, **chosen)
    else:
        optimizer, *_ = make_optimizer(parts.optimizer, model)
    if variant.compiles:
        from torch._inductor import config as inductor

        inductor.fallback_random = True  # dropout draws the same masks as in the other loops
        model.compile(dynamic=False)
    mixed = torch.autocast(native.device, torch.bfloat16, enabled=native.precision == "bf16-mixed")

    def forward(images: Tensor) -> Tensor:
        with mixed:
            logits = model(images.to(memory_format=native.memory_format))
        return logits.float()

    yield from _train(parts, forward, optimizer, _epochs(parts, native.device), native, watch)


def native_of(config: DictConfig, parts: Parts, variant: Variant | None = None) -> hardware.Native:
    """Return how the best loop computes: as the variant says, else as configured."""
    trainer, variant = config.trainer, variant or Variant()
    precision = trainer.precision if variant.precision == "auto" else variant.precision
    layout = trainer.memory_format if variant.memory_format == "auto" else variant.memory_format
    return hardware.choose(trainer.accelerator, precision, layout).suited_to(parts.model)


def _epochs(parts: Parts, device: str) -> Iterator[BatchLoader]:
    """Yield each epoch's batches, made on the device."""
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
    by_step, by_epoch = _schedulers(parts, optimizer)
    if parts.slow:
        parts.slow.begin()
    watch.wait(native)
    for epoch, batches in enumerate(epochs):
        for scheduler in by_epoch if epoch else ():
            scheduler.step()
        for index, (images, labels) in enumerate(batches):
            watch.begin(epoch, index, parts.seed)
            logits = forward(images)
            loss = loss_of(logits, labels)
            if isinstance(batches, BatchLoader) and batches.selection is not None:
                batches.note(nn.functional.cross_entropy(logits.detach(), labels, reduction="none"))
            watch.mark("forward")
            optimizer.zero_grad()
            loss.backward()
            watch.mark("backward")
            if grad_clip:
                nn.utils.clip_grad_norm_(weights, grad_clip)
            optimizer.step()
            for scheduler in by_step:
                scheduler.step()
            if parts.slow:
                parts.slow.update()
            watch.mark("optimizer")
            yield loss


def _schedulers(parts: Parts, optimizer: Optimizer) -> tuple[list[LRScheduler], list[LRScheduler]]:
    """Return schedulers per step and per epoch; both are empty for `ReduceLROnPlateau`, which needs a metric."""
    if parts.schedule is None:
        return [], []
    scheduler = make_scheduler(parts.schedule["scheduler"], optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        return [], []
    return ([scheduler], []) if parts.schedule["interval"] == "step" else ([], [scheduler])


class SlowWeights:
    """Lookahead by its formula, without Lightning.

    Args:
        model: Model with the fast weights.
        settings: Settings of lookahead.
        steps: Steps of the whole run.
    """

    def __init__(self, model: nn.Module, settings: Lookahead, steps: int) -> None:
        self.model, self.settings, self.steps, self.step = model, settings, steps, 0
        self._slow: list[Tensor] | None = None

    def begin(self) -> None:
        """Copy the initial weights to the slow weights, unless lookahead starts later."""
        self._slow = None if self.settings.start else [each.clone() for each in self._fast()]

    def update(self) -> None:
        """Count a step; every `settings.every` steps, move the slow weights and set the fast ones to them."""
        self.step += 1
        progress = self.step / self.steps
        if self.step % self.settings.every:
            return
        if self._slow is None:
            self._slow = [each.clone() for each in self._fast()] if progress >= self.settings.start else None
            return
        share = 1 - (1 - self.settings.alpha) * progress**self.settings.power
        for slow, fast in zip(self._slow, self._fast(), strict=True):
            fast.copy_(slow.lerp_(fast, share))

    def finish(self) -> None:
        """Replace the weights by the slow weights."""
        for slow, fast in zip(self._slow or (), self._fast() if self._slow else (), strict=True):
            fast.copy_(slow)

    def _fast(self) -> list[Tensor]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [each.detach() for each in tensors if each.is_floating_point()]
