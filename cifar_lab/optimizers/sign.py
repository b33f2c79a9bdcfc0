"""Sign-based optimizers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cifar_lab.optimizers.by_group import ByGroup


class SignSGD(ByGroup):
    """The report's SignSGD: momentum over the signs of the gradients.

    `buffer = momentum * buffer + (1 - momentum) * sign(gradient + weight_decay * weight)`, then
    `weight -= lr * buffer`. It averages signs. That is neither signSGD, whose step is the sign of one gradient
    (arXiv:1802.04434, algorithm 1), nor `Signum`, whose step is the sign of an average of gradients (algorithm 2).
    Unlike the report's code it does not modify the gradients.

    Args:
        params: Parameters, or groups of them.
        lr: Size of a step per weight.
        momentum: Momentum of the signs; 0 steps along the plain signs.
        weight_decay: L2 penalty, added to the gradient before its sign is taken.
        foreach: Update all parameters in a few multi-tensor calls, the default; False updates them one by one.

    Raises:
        ValueError: `lr` or `weight_decay` is negative, or `momentum` is outside [0, 1).
    """

    _averages_signs = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"lr={lr} and weight_decay={weight_decay} must not be negative")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} is outside [0, 1)")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "foreach": foreach})

    def _step_group(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        if group["foreach"] in (None, True):
            self._step(weights, group)
        else:
            for weight in weights:
                self._step([weight], group)

    def _step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        if not weights:
            return
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        # The sum is a new tensor, so taking its sign in place does not change the gradient.
        averaged = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if self._averages_signs:
            torch._foreach_sign_(averaged)
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, averaged, alpha=1 - group["momentum"])
        steps = buffers if self._averages_signs else torch._foreach_sign(buffers)
        torch._foreach_add_(weights, steps, alpha=-group["lr"])


class Signum(SignSGD):
    """Sign of the momentum of the gradients (arXiv:1802.04434, algorithm 2).

    `buffer = momentum * buffer + (1 - momentum) * (gradient + weight_decay * weight)`, then
    `weight -= lr * sign(buffer)`; momentum 0 is signSGD (algorithm 1). Arguments and errors are those of `SignSGD`.
    Departure: `weight_decay` is an L2 penalty, as in `SignSGD`; the paper's algorithm 2 has none.
    """

    _averages_signs = False
