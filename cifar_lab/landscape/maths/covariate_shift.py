"""Internal covariate shift: how a layer's gradient changes because the layers below it have taken their step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cifar_lab.landscape.maths.functional import Loss, Weights, difference, dot, norm, value_and_gradient


class Shift(NamedTuple):
    """What happens to the gradient of each layer; arrays `(layers,)`.

    Attributes:
        gradient_norm: `||G||`, of the gradient before.
        distance: `||G - G'||`, to the gradient after the layers below have taken their step.
        cosine: Of the angle between the two; NaN where one of them is zero.
    """

    gradient_norm: np.ndarray
    distance: np.ndarray
    cosine: np.ndarray


def layers(weights: Weights) -> dict[str, list[str]]:
    """The layers of a network, from the images up: a matrix or a set of filters, and the vectors that follow it.

    So a layer has its bias, and the BatchNorm behind it. Layers stand in the order in which the network has them.

    Returns:
        The names of each layer's weights, by the layer's name.
    """
    found: dict[str, list[str]] = {}
    for name, value in weights.items():
        if value.dim() > 1 or not found:
            found[name.removesuffix(".weight")] = [name]
        else:
            list(found.values())[-1].append(name)
    return found


def gradient_norms(gradient: Weights, layers: Sequence[Sequence[str]]) -> np.ndarray:
    """The L2 norm of the gradient of each layer, `(layers,)`."""
    return np.array([float(norm({name: gradient[name] for name in layer})) for layer in layers])


def covariate_shift(loss: Loss, weights: Weights, stepped: Weights, layers: Sequence[Sequence[str]]) -> Shift:
    """Internal covariate shift by definition 2.1 of arXiv:1805.11604.

    Layer i has the gradient G at `weights`, and G' where the layers below it are those of `stepped` and all others, it
    too, those of `weights`; both on the same batch. The lowest layer has none below, so its distance is 0.

    Args:
        loss: Of one batch.
        weights: Before the step.
        stepped: After it.
        layers: The names of each layer's weights, from the lowest up.
    """
    _, gradient = value_and_gradient(loss, weights)
    distances, cosines = [], []
    mixed = dict(weights)
    for below, layer in zip([(), *layers], layers, strict=False):
        mixed |= {name: stepped[name] for name in below}
        changed = _layer_gradient(loss, mixed, layer) if below else gradient
        # In float64, where a cosine near 1 does not pass it.
        before, after = ({name: values[name].double() for name in layer} for values in (gradient, changed))
        lengths = norm(before) * norm(after)
        distances.append(float(norm(difference(before, after))))
        cosines.append(float(dot(before, after) / lengths) if lengths != 0 else float("nan"))
    return Shift(gradient_norms(gradient, layers), np.array(distances), np.array(cosines))


def _layer_gradient(loss: Loss, weights: Weights, layer: Sequence[str]) -> dict[str, torch.Tensor]:
    """The gradient of some weights alone; the others' would take as long again."""
    fixed = {name: value for name, value in weights.items() if name not in layer}
    free = {name: weights[name] for name in layer}
    return value_and_gradient(lambda some: loss({**fixed, **some}), free)[1]
