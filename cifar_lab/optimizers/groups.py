"""Builds optimizers with parameter groups and with torch's fastest implementation."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

KINDS = ("norms", "biases", "head")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Grouped:
    """An optimizer factory whose learning rates and weight decay depend on the kind of parameter.

    Call it with a network and arguments of the factory. Parameters that require no gradient are left out. Parameters
    with the same settings share a group; the first group has the weights of convolutions and inner layers. With the
    defaults all parameters are in one group, in the network's order.

    Raises:
        ValueError: `relative_lr` has an unknown key or a negative rate; or, when called, the optimizer has no weight
            decay to change.
    """

    factory: Callable[..., Optimizer]  # an optimizer's class or a `functools.partial` of one
    # learning rates relative to the factory's, 1 if not set: `norms` (weights and biases of normalisation layers),
    # `biases` (of other layers except the head) and `head` (weight and bias of the last linear layer)
    relative_lr: Mapping[str, float] = field(default_factory=dict)
    decay_norms: bool = True  # whether weight decay applies to normalisation layers and to biases
    # divide each group's weight decay by its initial rate, so that a step shrinks the weights of all groups by the same
    # share: `weight_decay` at the initial rates, less as the rates fall
    decay_by_rate: bool = False

    def __post_init__(self) -> None:
        for kind, rate in self.relative_lr.items():
            if kind not in KINDS or rate < 0:
                raise ValueError(f"optimizer.relative_lr.{kind}={rate}: it takes {', '.join(KINDS)}, each at least 0")

    def __call__(self, model: nn.Module, **arguments: Any) -> Optimizer:
        """Build the optimizer of a network's parameters."""
        optimizer = self.factory(self._groups(model), **arguments)
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("relative_lr", 1)
            decays = group.pop("decays", True)
            if (self.decay_by_rate or not decays) and "weight_decay" not in group:
                raise ValueError(f"decay_norms and decay_by_rate: {type(optimizer).__name__} has no weight_decay")
            if not decays:
                group["weight_decay"] = 0.0
            elif self.decay_by_rate and group["lr"]:
                group["weight_decay"] /= group["lr"]
        return optimizer

    def _groups(self, model: nn.Module) -> list[Any]:
        """Return the parameters, or groups of them if their settings differ."""
        plain = (1, True)
        groups: dict[tuple[float, bool], list[Tensor]] = {plain: []}
        for weight, kind, is_bias in _kinds(model):
            decays = self.decay_norms or not (is_bias or kind == "norms")
            groups.setdefault((self.relative_lr.get(kind, 1), decays), []).append(weight)
        if len(groups) == 1:
            return groups[plain]
        return [
            {"params": weights, "relative_lr": rate, "decays": decays}
            for (rate, decays), weights in groups.items()
            if weights
        ]


def _kinds(model: nn.Module) -> Iterator[tuple[Tensor, str, bool]]:
    """Yield each parameter that requires a gradient, in the network's order, its kind and whether it is a bias."""
    head = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    owners = {
        weight: (module, name) for module in model.modules() for name, weight in module.named_parameters(recurse=False)
    }
    for weight in model.parameters():
        module, name = owners[weight]
        is_bias = name.endswith("bias")
        kind = "norms" if isinstance(module, _NORMS) else "head" if module is head else "biases" if is_bias else ""
        if weight.requires_grad:
            yield weight, kind, is_bias


def relative_rates(optimizer: Optimizer) -> list[float]:
    """Return each group's initial learning rate, relative to the first group's."""
    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    return [rate / rates[0] for rate in rates]


def make_scheduler(factory: Callable[..., LRScheduler], optimizer: Optimizer) -> LRScheduler:
    """Build a scheduler; a factory's `max_lr` is for the first group, and other groups keep their ratio to it."""
    bound = factory.keywords if isinstance(factory, partial) else {}
    if "max_lr" in bound and len(optimizer.param_groups) > 1:
        return factory(optimizer, max_lr=[bound["max_lr"] * rate for rate in relative_rates(optimizer)])
    return factory(optimizer)


def make_optimizer(
    factory: Callable[..., Optimizer], model: nn.Module, allow_fused: bool = True
) -> tuple[Optimizer, str]:
    """Build an optimizer with its fastest implementation for a network's parameters.

    Args:
        factory: An optimizer class, a `functools.partial` of one, or either in a `Grouped`; its own `fused` and
            `foreach` are kept.
        model: The network; its parameters that require a gradient are optimised, all on one device.
        allow_fused: Whether `fused` may be chosen. Not with scaled gradients (16-bit floats): fused optimizers unscale
            them inside the step, after gradient clipping.

    Returns:
        The optimizer and its implementation: `fused`, `foreach` or `for_loop`.

    Raises:
        ValueError: The factory sets `fused` without `allow_fused`; or see `Grouped`.
    """
    make = factory if isinstance(factory, Grouped) else Grouped(factory)
    bound = make.factory.keywords if isinstance(make.factory, partial) else {}
    accepted = inspect.signature(make.factory).parameters
    for implementation in ("fused", "foreach"):
        if bound.get(implementation):
            if implementation == "fused" and not allow_fused:
                raise ValueError("fused=True unscales gradients inside the step, after they were clipped")
            return make(model), implementation
    if any(bound.get(name) is False for name in ("fused", "foreach")):
        return make(model), "for_loop"
    for implementation in ("fused", "foreach"):
        if implementation in accepted and (implementation != "fused" or allow_fused):
            try:
                return make(model, **{implementation: True}), implementation
            except RuntimeError:  # torch has none for this device or dtype
                continue
    return make(model), "for_loop"
