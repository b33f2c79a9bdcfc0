"""Muon for convolution filters."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from cifar_lab.optimizers.by_group import ByGroup

_QUINTIC = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7


def orthogonalised(matrices: Tensor, steps: int) -> Tensor:
    """Move the singular values of matrices towards 1 by Newton-Schulz iterations, from `U S V'` towards `U V'`.

    Each matrix is first divided by its Frobenius norm. An iteration maps `X` to `(a + b XX' + c (XX')^2) X`, with
    (a, b, c) = (3.4445, -4.7750, 2.0315), chosen for a steep slope at 0: three steps leave singular values between
    about 0.5 and 1.5. Source: `zeropower_via_newtonschulz5` of github.com/KellerJordan/cifar10-airbench.

    Departures: the polynomials are multiplied before they are applied, which is the same in exact arithmetic and takes
    half the time for filters that are wider than high. Computes in the matrices' own dtype instead of bfloat16.

    Args:
        matrices: `(..., rows, columns)`.
        steps: Iterations, at least one.
    """
    if matrices.size(-2) > matrices.size(-1):
        return orthogonalised(matrices.mT, steps).mT
    a, b, c = _QUINTIC
    matrices = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + _EPS)
    gram = matrices @ matrices.mT
    eye = product = torch.eye(gram.size(-1), dtype=gram.dtype, device=gram.device)
    for step in range(steps):
        factor = a * eye + b * gram + c * gram @ gram
        product = factor @ product if step else factor
        if step < steps - 1:
            gram = factor @ gram @ factor
    return product @ matrices


class Muon(ByGroup):
    """Orthogonalised momentum for convolution filters, and Nesterov's SGD for all other parameters.

    A filter bank of shape `(out, in, height, width)` is scaled to the Frobenius norm `sqrt(out)`, then moves by `lr`
    along its Nesterov momentum, `orthogonalised` as a matrix `(out, in * height * width)`. Source:
    github.com/KellerJordan/cifar10-airbench, `airbench94_muon.py`. Filters have no weight decay: their norm is fixed.

    The source sums the loss over a batch; this project takes the mean. Steps of filters are the same. For the other
    parameters, multiply the source's rate by its batch size, 2,000, and divide its weight decay by it.

    Args:
        params: Parameters, or groups of them. A group is split into filters, which have four dimensions, and the rest,
            unless it has the key `orthogonal`. Its other keys override the arguments.
        lr: Learning rate of filters: about the relative change of their weights in a step.
        momentum: Momentum of the filters.
        ns_steps: Newton-Schulz iterations.
        sgd_lr: Learning rate of the other parameters.
        sgd_momentum: Momentum of the other parameters; 0 is plain SGD.
        weight_decay: L2 penalty of the other parameters, added to the gradient.
        foreach: Update the other parameters in a few multi-tensor calls, the default; False updates them one by one.

    Raises:
        ValueError: A rate or `weight_decay` is negative, a momentum is outside [0, 1), or `ns_steps` is below 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.6,
        ns_steps: int = 3,
        sgd_lr: float = 0.05,
        sgd_momentum: float = 0.85,
        weight_decay: float = 5e-4,
        foreach: bool | None = None,
    ) -> None:
        if min(lr, sgd_lr, weight_decay) < 0:
            raise ValueError(f"lr={lr}, sgd_lr={sgd_lr} and weight_decay={weight_decay} must not be negative")
        if not (0 <= momentum < 1 and 0 <= sgd_momentum < 1):
            raise ValueError(f"momentum={momentum} or sgd_momentum={sgd_momentum} is outside [0, 1)")
        if ns_steps < 1:
            raise ValueError(f"ns_steps={ns_steps} is below 1")
        kinds: list[dict[str, Any]] = [
            {"orthogonal": True, "lr": lr, "momentum": momentum, "weight_decay": 0.0, "ns_steps": ns_steps},
            {"orthogonal": False, "lr": sgd_lr, "momentum": sgd_momentum, "weight_decay": weight_decay},
        ]
        listed = list(params)
        groups = [
            {**kind, **group, "params": part}
            for group in (listed if listed and isinstance(listed[0], dict) else [{"params": listed}])
            for kind in kinds
            if (part := [each for each in group["params"] if _is_orthogonal(each, group) == kind["orthogonal"]])
        ]
        super().__init__(groups, {**kinds[0], "foreach": foreach})

    def _step_group(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        if group["orthogonal"]:
            for weight in weights:
                self._step_filters(weight, group)
        elif weights:
            self._step_rest(weights, group)

    def _step_filters(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        if not self.state[weight]:
            self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffer = self.state[weight]["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
        direction = weight.grad.add(buffer, alpha=group["momentum"]).flatten(1)
        weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(_EPS))
        weight.sub_(orthogonalised(direction, group["ns_steps"]).reshape(weight.shape), alpha=group["lr"])

    def _step_rest(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        buffers = [self.state[weight].get("momentum_buffer") for weight in weights]
        sgd(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            buffers,
            foreach=group["foreach"] is not False,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["momentum"] > 0,
            maximize=False,
        )
        for weight, buffer in zip(weights, buffers, strict=True):
            self.state[weight]["momentum_buffer"] = buffer


def _is_orthogonal(weight: Tensor, group: dict[str, Any]) -> bool:
    return bool(group.get("orthogonal", weight.ndim == 4))
