"""Internal covariate shift: the change of a layer's gradient caused by the step of the layers below it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cifar_lab.landscape.maths.functional import Loss, Weights, difference, dot, norm, value_and_gradient


class Shift(NamedTuple):
    """`||G||`, `||G - G'||` and cos(G, G') for each layer, arrays `(layers,)`; the cosine is NaN if G or G' is zero."""

    gradient_norm: np.ndarray
    distance: np.ndarray
    cosine: np.ndarray


def layers(weights: Weights) -> dict[str, list[str]]:
    """Return the weight names of each layer by its name, in the network's order.

    A layer is a matrix or a set of filters with the vectors that follow it: its bias and the next BatchNorm's weights.
    """
    layers: dict[str, list[str]] = {}
    for name, value in weights.items():
        if value.dim() > 1 or not layers:
            layers[name.removesuffix(".weight")] = [name]
        else:
            list(layers.values())[-1].append(name)
    return layers


def covariate_shift(loss: Loss, weights: Weights, stepped: Weights, layers: Sequence[Sequence[str]]) -> Shift:
    """Compute internal covariate shift by definition 2.1 of arXiv:1805.11604.

    G is a layer's gradient at `weights`. G' is its gradient with the layers below taken from `stepped` and all other
    layers from `weights`, on the same batch. The distance of the lowest layer is 0.

    Args:
        loss: Loss of one batch.
        weights: Weights before the step.
        stepped: Weights after the step.
        layers: Names of each layer's weights, from the lowest layer up.
    """
    _, gradient = value_and_gradient(loss, weights)
    norms, distances, cosines = [], [], []
    mixed = dict(weights)
    for below, layer in zip([(), *layers], layers, strict=False):
        mixed |= {name: stepped[name] for name in below}
        own = {name: gradient[name] for name in layer}
        changed = _layer_gradient(loss, mixed, layer) if below else own
        # In float32, rounding can lift a cosine above 1.
        before, after = ({name: value.double() for name, value in part.items()} for part in (own, changed))
        lengths = norm(before) * norm(after)
        norms.append(float(norm(own)))
        distances.append(float(norm(difference(before, after))))
        cosines.append(float(dot(before, after) / lengths) if lengths != 0 else float("nan"))
    return Shift(np.array(norms), np.array(distances), np.array(cosines))


def _layer_gradient(loss: Loss, weights: Weights, layer: Sequence[str]) -> Weights:
    """Return the gradient of one layer only; the other layers would double the time."""
    fixed = {name: value for name, value in weights.items() if name not in layer}
    free = {name: weights[name] for name in layer}
    return value_and_gradient(lambda some: loss({**fixed, **some}), free)[1]
