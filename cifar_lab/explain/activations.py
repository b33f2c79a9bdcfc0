"""Inputs and outputs of each activation layer, and which of its units are dead.

A unit is a channel of a convolution, at every position, or a feature of a linear layer. Over some images, it is
`negative_only` if its input is never above 0, and `dead` if the activation's derivative is 0 at all of its inputs: no
gradient of those images reaches it, so none of them can revive it (the dying ReLU of arXiv:1903.06733). For ReLU the
two are the same. A LeakyReLU (Maas et al. 2013, "Rectifier nonlinearities improve neural network acoustic models") has
a slope below 0, so its unit may be negative only but is not dead.

If a 2x2 max-pool comes before the activation (`cifar_lab.models.layers.pooled`), the inputs are the pooled ones. Both
counts stay the same, because a maximum is negative exactly if all values are; the shares of negative inputs and of
zeros are smaller.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_DERIVATIVE = 1e-6  # in absolute value; a smaller derivative counts as 0
# These activations mix features, so an output has no derivative by a single input.
_MIXING = (nn.GLU, nn.LogSoftmax, nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin)


@dataclass(frozen=True)
class LayerActivations:
    """An activation layer over some images."""

    layer: str  # its name in the network, followed by `#2` and so on for its further calls in one forward pass
    activation: str  # its class
    units: int  # the number of channels or features
    mean: float  # of its outputs, over images, units and positions
    std: float  # their standard deviation
    negative_inputs: float  # share of its inputs below 0
    zeros: float  # share of its outputs that are exactly 0
    negative_only_units: int  # units whose input is never above 0
    dead_units: int  # units whose derivative is always 0

    def row(self) -> dict[str, Any]:
        """Plain values, with `negative_only` and `dead` as shares of the units, from 0 to 1."""
        shares = {name: getattr(self, f"{name}_units") / self.units for name in ("negative_only", "dead")}
        return {**vars(self), **shares}


def measure(
    model: nn.Module,
    batches: Iterable[Tensor],
    activation: str | None = None,
    complain: Callable[[str], None] = lambda _: None,
) -> list[LayerActivations]:
    """Measure every activation layer, in the order in which they run.

    Args:
        model: In evaluation mode.
        batches: Normalised float32 images `(N, 3, 32, 32)`, on the model's device.
        activation: The name of a class that counts as an activation besides torch's own.
        complain: Called with a line for each layer that is left out because its shape does not show its units.

    Returns:
        An empty list if the activations are function calls and not modules.
    """
    layers: dict[str, _Layer] = {}
    left_out: dict[str, str] = {}
    runs: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            runs[name] = runs.get(name, 0) + 1
            key = name if runs[name] == 1 else f"{name}#{runs[name]}"
            outputs, derivative = _with_derivative(module, inputs[0])
            if outputs.shape != inputs[0].shape or outputs.ndim not in (2, 4):
                left_out.setdefault(key, f"{_shape(inputs[0])} to {_shape(outputs)}")
            else:
                layers.setdefault(key, _Layer(type(module).__name__)).add(inputs[0], outputs, derivative)

        return before

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if _is_activation(module, activation):
                # A pre-hook, because an in-place activation overwrites its input.
                hooks.callback(module.register_forward_pre_hook(hook(name)).remove)
        for images in batches:
            runs.clear()
            model(images)
    for key, shapes in left_out.items():
        complain(f"{key} is left out, {shapes}: units are those of (N, features) or (N, channels, height, width)")
    return [layer.result(name) for name, layer in layers.items()]


def totals(layers: Sequence[LayerActivations]) -> dict[str, Any]:
    """All layers together: their activations, and the number and share of units that are negative only or dead."""
    units = sum(layer.units for layer in layers)
    counts = {name: sum(getattr(layer, f"{name}_units") for layer in layers) for name in ("negative_only", "dead")}
    return {
        "activation": ", ".join(dict.fromkeys(layer.activation for layer in layers)),
        "units": units,
        **{f"{name}_units": count for name, count in counts.items()},
        **{name: count / units if units else None for name, count in counts.items()},
    }


def _shape(values: Tensor) -> str:
    """Without the number of images."""
    return f"({', '.join(['N', *map(str, values.shape[1:])])})"


def _is_activation(module: nn.Module, name: str | None) -> bool:
    if isinstance(module, _MIXING):
        return False
    return type(module).__module__ == "torch.nn.modules.activation" or type(module).__name__ == name


def _with_derivative(module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs, and d output / d input at each of them."""
    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_()
        outputs = module.forward(leaf.clone())  # a clone in case it works in place; `forward`, because calls are hooked
        if not outputs.requires_grad:  # a step function
            return outputs, torch.zeros_like(leaf)
        (derivative,) = torch.autograd.grad(outputs.sum(), leaf)
    return outputs.detach(), derivative


class _Layer:
    """Sums over batches."""

    def __init__(self, activation: str) -> None:
        self.activation = activation
        self.count = self.negative = self.zeros = 0
        self.mean = self.squares = 0.0  # of outputs, and the sum of their squared deviations from it
        self.highest: Tensor | None = None  # input of each unit
        self.steepest: Tensor | None = None  # derivative of each unit

    def add(self, inputs: Tensor, outputs: Tensor, derivative: Tensor) -> None:
        over = [0, *range(2, inputs.ndim)]
        highest, steepest = inputs.amax(over), derivative.abs().amax(over)
        self.highest = highest if self.highest is None else torch.maximum(self.highest, highest)
        self.steepest = steepest if self.steepest is None else torch.maximum(self.steepest, steepest)
        self.negative += int((inputs < 0).sum())
        self.zeros += int((outputs == 0).sum())
        # Combines mean and squares of two sets (Chan, Golub and LeVeque 1979): no difference of large sums of squares.
        variance, mean = (float(value) for value in torch.var_mean(outputs, correction=0))
        together, apart = self.count + outputs.numel(), mean - self.mean
        self.squares += variance * outputs.numel() + apart**2 * self.count * outputs.numel() / together
        self.mean += apart * outputs.numel() / together
        self.count = together

    def result(self, name: str) -> LayerActivations:
        assert self.highest is not None and self.steepest is not None
        return LayerActivations(
            layer=name,
            activation=self.activation,
            units=len(self.highest),
            mean=self.mean,
            std=(self.squares / self.count) ** 0.5,
            negative_inputs=self.negative / self.count,
            zeros=self.zeros / self.count,
            negative_only_units=int((self.highest <= 0).sum()),
            dead_units=int((self.steepest < SMALLEST_DERIVATIVE).sum()),
        )
