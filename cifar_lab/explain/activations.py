"""Statistics of activation layers, and their dead units.

A unit is a channel of a convolution, over all positions, or a feature of a linear layer. On a set of images, it is
`negative_only` if its input is never above 0, and `dead` if the derivative of the activation is 0 at all its inputs: no
gradient of these images reaches it, so none of them can revive it (the dying ReLU of arXiv:1903.06733). For ReLU both
are the same. A LeakyReLU (Maas et al. 2013, "Rectifier nonlinearities improve neural network acoustic models") has a
slope for negative inputs, so its units can be negative only but not dead.

If a 2x2 max-pool precedes the activation (`cifar_lab.models.layers.pooled`), its inputs are the pooled values. Both
counts stay the same, because a maximum is negative exactly if all values are. The shares of negative inputs and of
zeros are smaller.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_DERIVATIVE = 1e-6  # absolute; a smaller derivative counts as 0
# These mix features, so an output depends on more than one input.
_MIXING = (nn.GLU, nn.LogSoftmax, nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin)


@dataclass(frozen=True)
class LayerActivations:
    """Statistics of an activation layer over a set of images."""

    layer: str  # name in the network, with `#2` and so on for further calls in one forward pass
    activation: str  # class name
    units: int  # number of channels or features
    mean: float  # mean of its outputs, over images, units and positions
    std: float  # standard deviation of its outputs
    negative_inputs: float  # share of inputs below 0
    zeros: float  # share of outputs that are exactly 0
    negative_only_units: int  # units whose input is never above 0
    dead_units: int  # units whose derivative is always below `SMALLEST_DERIVATIVE`

    def row(self) -> dict[str, Any]:
        """Return plain values, with `negative_only` and `dead` as shares of the units, from 0 to 1."""
        shares = {name: getattr(self, f"{name}_units") / self.units for name in ("negative_only", "dead")}
        return {**vars(self), **shares}


def measure(
    model: nn.Module,
    batches: Iterable[Tensor],
    activation: str | None = None,
    complain: Callable[[str], None] = lambda _: None,
) -> list[LayerActivations]:
    """Measure every activation layer, in the order of execution.

    Args:
        model: In evaluation mode.
        batches: Normalised float32 images `(N, 3, 32, 32)`, on the model's device.
        activation: Name of a class that counts as an activation in addition to those of torch.
        complain: Called with a message for each layer left out because its shapes do not identify its units.

    Returns:
        Statistics of each layer; empty if the activations are function calls instead of modules.
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
        complain(f"{key} is left out, {shapes}: only (N, features) and (N, channels, height, width) have units")
    return [layer.result(name) for name, layer in layers.items()]


def totals(layers: Sequence[LayerActivations]) -> dict[str, Any]:
    """Sum over all layers: their activations, and the number and share of negative-only and dead units."""
    units = sum(layer.units for layer in layers)
    counts = {name: sum(getattr(layer, f"{name}_units") for layer in layers) for name in ("negative_only", "dead")}
    return {
        "activation": ", ".join(dict.fromkeys(layer.activation for layer in layers)),
        "units": units,
        **{f"{name}_units": count for name, count in counts.items()},
        **{name: count / units if units else None for name, count in counts.items()},
    }


def _shape(values: Tensor) -> str:
    """Format a shape without the number of images."""
    return f"({', '.join(['N', *map(str, values.shape[1:])])})"


def _is_activation(module: nn.Module, name: str | None) -> bool:
    if isinstance(module, _MIXING):
        return False
    return type(module).__module__ == "torch.nn.modules.activation" or type(module).__name__ == name


def _with_derivative(module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs, and d output / d input of each."""
    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_()
        outputs = module.forward(
            leaf.clone()
        )  # a clone, because it may work in place; `forward`, because calls are hooked
        if not outputs.requires_grad:  # a step function
            return outputs, torch.zeros_like(leaf)
        (derivative,) = torch.autograd.grad(outputs.sum(), leaf)
    return outputs.detach(), derivative


class _Layer:
    """Accumulates the statistics of a layer over batches."""

    def __init__(self, activation: str) -> None:
        self.activation = activation
        self.count = self.negative = self.zeros = 0
        self.mean = self.squares = 0.0  # of the outputs: their mean, and the sum of squared deviations from it
        self.highest: Tensor | None = None  # largest input of each unit
        self.steepest: Tensor | None = None  # largest absolute derivative of each unit

    def add(self, inputs: Tensor, outputs: Tensor, derivative: Tensor) -> None:
        over = [0, *range(2, inputs.ndim)]
        highest, steepest = inputs.amax(over), derivative.abs().amax(over)
        self.highest = highest if self.highest is None else torch.maximum(self.highest, highest)
        self.steepest = steepest if self.steepest is None else torch.maximum(self.steepest, steepest)
        self.negative += int((inputs < 0).sum())
        self.zeros += int((outputs == 0).sum())
        # Pairwise update (Chan, Golub and LeVeque 1979), which avoids the difference of large sums of squares.
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
