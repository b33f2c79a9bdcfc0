"""Training time on this machine, measured on a few steps, and training effort for comparing compositions.

torch is imported inside the functions that need it.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from cifar_lab.config import build, build_optimizer
from cifar_lab.runs.sizes import train_size

if TYPE_CHECKING:
    from torch import Tensor

_WARM_UP = 2
_HALVES = (0.5, 0.5, 0.5)  # used if mean and standard deviation come from the images
_MOST_STEPS, _FEWEST_STEPS = 40, 3


@dataclass(frozen=True)
class Speed:
    """Images per second in training steps and in evaluation."""

    training: float
    evaluation: float

    def seconds(self, epochs: float, train_size: int, test_size: int, validations: int) -> float:
        """Return the seconds of training, `validations` validations and two tests, each over `test_size` images."""
        return epochs * train_size / self.training + (validations + 2) * test_size / self.evaluation


def measure(config: Mapping[str, Any], seconds: float = 2.0) -> Speed:
    """Time training and evaluation steps of a composition (resolved, plain values) on random images.

    Training is timed for about `seconds` after two warm-up steps, but for at least three steps. Loading and augmenting
    batches, a few percent of a step, is not included.
    """
    import torch

    from cifar_lab.data.loader import normalise
    from cifar_lab.machine import hardware

    trainer = config["trainer"]
    native = hardware.choose(trainer["accelerator"], trainer["precision"], trainer["memory_format"])
    hardware.keep_freed_memory(native.device)
    parts = OmegaConf.create({key: config[key] for key in ("model", "loss", "optimizer")})
    model = build(parts.model)
    native = native.suited_to(model)
    model = model.to(native.device, memory_format=native.memory_format)
    criterion = build(parts.loss).to(native.device)
    optimizer = build_optimizer(parts.optimizer)(model)
    mixed = torch.autocast(native.device, torch.bfloat16, enabled=native.precision == "bf16-mixed")
    generator = torch.Generator().manual_seed(0)
    size = config["batch_size"]
    raw = torch.randint(256, (size, 32, 32, 3), generator=generator, dtype=torch.uint8).to(native.device)
    labels = torch.randint(config["model"]["num_classes"], (size,), generator=generator).to(native.device)
    mean, std = (torch.tensor(config["data"][name] or _HALVES, device=native.device) for name in ("mean", "std"))

    def forward() -> "Tensor":
        with mixed:
            images = normalise(raw, mean, std).to(memory_format=native.memory_format)
            return criterion(model(images), labels)

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad():
            forward()

    training = size / _median_seconds(step, seconds, native.device)
    model.eval()
    return Speed(training, size / _median_seconds(evaluate, seconds / 4, native.device))


def effort(config: Mapping[str, Any]) -> float | None:
    """Return the forward FLOPs over all training images of a composition (plain values); None if they are unknown.

    Counts matrix products and convolutions on torch's `meta` device, without computing anything.
    """
    import torch

    from cifar_lab.models.flops import flops

    size, limit = train_size(config["data"]), config["trainer"]["limit_train_batches"] or 1.0
    images = size * limit if isinstance(limit, float) else min(size, limit * config["batch_size"])
    try:
        with torch.device("meta"):
            each = flops(build(OmegaConf.create({"model": config["model"]}).model), torch.zeros(1, 3, 32, 32))
    except Exception:  # an external component may not work on the meta device
        return None
    return float(config["epochs"] * images * each)


def _median_seconds(call: Callable[[], object], seconds: float, device: str) -> float:
    import torch

    took: list[float] = []
    for number in range(_WARM_UP + _MOST_STEPS):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= _WARM_UP:
            took.append(time.perf_counter() - started)
        if len(took) >= _FEWEST_STEPS and sum(took) > seconds:
            break
    return statistics.median(took)
