"""Results of a race: speeds as medians, ratios and fractions of the machine's peak."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from cifar_lab.benchmark.budget import Budget
from cifar_lab.benchmark.pil import pil_transforms
from cifar_lab.benchmark.race import LOOPS, VARIANTS, Contest, Measured, race, training_words
from cifar_lab.config import build
from cifar_lab.config.command_line import parsed
from cifar_lab.config.composition import composed
from cifar_lab.config.preflight import plan_of
from cifar_lab.machine import hardware, provenance
from cifar_lab.train.classifier import Classifier

# Largest accepted relative difference of a loss from the plain loop's, by precision. It covers rounding over the first
# steps for batches of at least `_TOLERANCE_IMAGES`; smaller batches average rounding less.
_TOLERANCE = {"32-true": 0.01, "bf16-mixed": 0.03}
_TOLERANCE_IMAGES = 128
_MODELS = {"vgg_a": ["model=vgg_a", "bn=true"], "speed_cnn": ["model=speed_cnn", "optimizer=muon"]}
_MATMUL_SIZES = (512, 1024, 2048, 4096)
_MATMUL_SECONDS = 0.5


@dataclass(frozen=True)
class Comparison:
    """Results of all loops on one network."""

    title: str  # overrides and batch size
    contest: Contest
    measured: Sequence[Measured]  # one per loop
    flops_per_image: int  # floating-point operations of a forward pass
    matmul_flops: Mapping[str, float]  # peak matrix-product operations per second on this machine, by precision

    def plain(self) -> dict[str, Any]:
        """Return plain values; each ratio is the median over rounds."""
        return {
            "title": self.title,
            "command": list(self.contest.command),
            "batch_size": self.contest.batch_size,
            "flops_per_image": self.flops_per_image,
            "loops": [self._row(one) for one in self.measured],
        }

    @property
    def check_steps(self) -> int:
        """Number of steps whose losses are compared."""
        return len(self.measured[0].losses)

    def apart(self) -> dict[str, float]:
        """Return the largest relative difference of each loop's first losses from the plain loop's."""
        (reference,) = (one.losses for one in self.measured if one.name in ("plain", "fp32"))
        return {one.name: float(np.abs(np.divide(one.losses, reference) - 1).max()) for one in self.measured}

    @property
    def astray(self) -> list[str]:
        """One line per loop whose losses differ from the plain loop's by more than the tolerance."""
        precisions = {one.name: one.precision for one in self.measured}
        more = max(1, _TOLERANCE_IMAGES / self.contest.batch_size)
        return [
            f"{self.title}: the loss of {name} differs by {apart:.1%} from the plain loop's in {self.check_steps} steps"
            for name, apart in self.apart().items()
            if not apart <= more * _TOLERANCE.get(precisions[name], max(_TOLERANCE.values()))
        ]

    def _row(self, one: Measured) -> dict[str, Any]:
        speeds = [self.contest.batch_size / seconds for seconds in one.seconds_per_step]
        speed = statistics.median(speeds)
        # A backward pass costs two forward passes: one for weight gradients and one for input gradients.
        flops = 3 * self.flops_per_image * speed
        peak = self.matmul_flops.get(one.precision, max(self.matmul_flops.values()))
        return {
            "name": one.name,
            "precision": one.precision,
            "memory_format": one.memory_format,
            "images_per_second": speed,
            "images_per_second_low": min(speeds),
            "images_per_second_high": max(speeds),
            "ratio_to_report": self._ratio(one, "report"),
            "ratio_to_best": self._ratio(one, "best"),
            "shares": one.phases,
            "flops_per_second": flops,
            "share_of_matmul": flops / peak,
            "memory_bytes": one.memory_bytes,
            "seconds_per_step": one.seconds_per_step,
            "losses": one.losses,
        }

    def _ratio(self, one: Measured, name: str) -> float | None:
        others = [other.seconds_per_step for other in self.measured if other.name == name]
        if not others:
            return None
        return statistics.median(theirs / own for theirs, own in zip(others[0], one.seconds_per_step, strict=True))


def contest_of(
    model: str, overrides: Sequence[str], batch_size: int, rounds: int, seconds: float, variants: bool = False
) -> Contest:
    """Make and check the contest of the loops on a network.

    Args:
        model: `cnn`, `vgg_a` (with BatchNorm), `resnet14` or `speed_cnn` (with Muon).
        overrides: Overrides for every loop.
        batch_size: Images per step.
        rounds: Maximum number of turns per loop.
        seconds: Approximate length of a turn, if time permits.
        variants: Race the best loop against its variants.

    Raises:
        ValueError: A loop does not support the configuration.
    """
    typed = {override.partition("=")[0] for override in overrides}
    own = (word for word in _MODELS.get(model, [f"model={model}"]) if word.partition("=")[0] not in typed)
    loops = ("best", *VARIANTS) if variants else LOOPS
    contest = Contest((*own, *overrides), batch_size, loops, rounds, seconds)
    plan_of(parsed(training_words(contest)))
    if "report" in loops:
        pil_transforms(OmegaConf.create(composed(contest.command)))
    return contest


def compare(contest: Contest, host: Mapping[str, Any], budget: Budget) -> Comparison:
    """Race the loops of a contest within a time budget; `host` is from `describe_host`."""
    title = f"{' '.join(contest.command)} batch_size={contest.batch_size}"
    budget.begin(title)
    flops = flops_per_image([*contest.command, f"batch_size={contest.batch_size}"])
    return Comparison(title, contest, race(contest, budget), flops, host["matmul_flops"])


def describe_host() -> dict[str, Any]:
    """Describe the machine and versions, and measure its peak matrix-product operations per second by precision."""
    device = hardware.training_device("auto")
    dtypes = {"32-true": torch.float32}
    if hardware.native_precision(device) == "bf16-mixed":
        dtypes["bf16-mixed"] = torch.bfloat16
    peaks = {precision: _matmul_flops(device, dtype) for precision, dtype in dtypes.items()}
    return {**hardware.describe(device), "matmul_flops": peaks, "versions": provenance.versions()}


def _matmul_flops(device: str, dtype: torch.dtype) -> float:
    best = 0.0
    for size in _MATMUL_SIZES:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        until = time.perf_counter() + _MATMUL_SECONDS
        while time.perf_counter() < until:
            started = time.perf_counter()
            torch.mm(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def flops_per_image(command: Sequence[str]) -> int:
    """Return the floating-point operations of a forward pass per image, for a command line's network."""
    config = OmegaConf.create(composed(command))
    return Classifier(build(config.model), build(config.loss), partial(torch.optim.SGD, lr=0.1)).flops_per_image()
