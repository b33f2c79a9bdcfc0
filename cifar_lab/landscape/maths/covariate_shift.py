"""Internal covariate shift: how a layer's gradient changes because the layers below it have taken their step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cifar_lab.landscape.maths.functional import Loss, Weights, difference, dot, norm, value_and_gradient


class Shift(NamedTuple):
    """`||G||`, `||G - G'||` and cos(G, G'), which is NaN where one of them is zero; arrays `(layers,)`."""

    gradient_norm: np.ndarray
    distance: np.ndarray
    cosine: np.ndarray


def layers(weights: Weights) -> dict[str, list[str]]:
    """The names of each layer's weights, by the layer's name, in the network's order.

    A layer is a matrix or a set of filters, and the vectors that follow it: its bias, and the BatchNorm behind it.
    """
    layers: dict[str, list[str]] = {}
    for name, value in weights.items():
        if value.dim() > 1 or not layers:
            layers[name.removesuffix(".weight")] = [name]
        else:
            list(layers.values())[-1].append(name)
    return layers


def covariate_shift(loss: Loss, weights: Weights, stepped: Weights, layers: Sequence[Sequence[str]]) -> Shift:
    """Internal covariate shift by definition 2.1 of arXiv:1805.11604.

    A layer has the gradient G at `weights`, and G' where the layers below it are those of `stepped` and all others, it
    too, those of `weights`; both by the loss of the same batch. The lowest layer has none below, so its distance is 0.
    `layers` are the names of each layer's weights, from the lowest up.
    """
    _, gradient = value_and_gradient(loss, weights)
    norms, distances, cosines = [], [], []
    mixed = dict(weights)
    for below, layer in zip([(), *layers], layers, strict=False):
        mixed |= {name: stepped[name] for name in below}
        own = {name: gradient[name] for name in layer}
        changed = _layer_gradient(loss, mixed, layer) if below else own
        # In float64, where a cosine near 1 does not exceed it.
        before, after = ({name: value.double() for name, value in part.items()} for part in (own, changed))
        lengths = norm(before) * norm(after)
        norms.append(float(norm(own)))
        distances.append(float(norm(difference(before, after))))
        cosines.append(float(dot(before, after) / lengths) if lengths != 0 else float("nan"))
    return Shift(np.array(norms), np.array(distances), np.array(cosines))


def _layer_gradient(loss: Loss, weights: Weights, layer: Sequence[str]) -> Weights:
    """The gradient of some weights alone; the others' would take as long again."""
    fixed = {name: value for name, value in weights.items() if name not in layer}
    free = {name: weights[name] for name in layer}
    return value_and_gradient(lambda some: loss({**fixed, **some}), free)[1]
