"""A loss and its gradient at several step sizes along the gradient."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cifar_lab.landscape.maths import functional
from cifar_lab.landscape.maths.functional import Loss, Weights, difference, dot, moved, norm, value_and_gradient

POINT_QUANTITIES = ("loss", "grad_norm", "weight_norm", "hessian_norm", "sharpness")
MOVED_QUANTITIES = ("eta", "moved_loss", "moved_grad_norm", "grad_distance", "grad_cosine", "beta", "curvature")
RELATIVE = "relative_"
# Relative distance of the gradients of one loss in two memory layouts: rounding gives far less, a different dropout
# mask far more.
_TWINS = 1e-2


def probe(
    loss: Loss,
    weights: Weights,
    etas: Sequence[float],
    relative_distances: Sequence[float] = (),
    twin: Loss | None = None,
    known: tuple[Tensor, dict[str, Tensor]] | None = None,
) -> dict[str, np.ndarray]:
    """Measure a loss at `weights` w and at w - eta g, where g is its gradient at w (arXiv:1805.11604, section 3.2).

    The gradients g and g' = grad L(w - eta g) are compared over all weights, on the same loss. The Hessian's product
    with g gives the limit eta -> 0, which no step size reaches in floating point. If the loss overflows, results are
    infinite or NaN.

    Args:
        loss: Loss of one batch.
        weights: Weights w; left unchanged.
        etas: Step sizes `(J,)`.
        relative_distances: Step sizes as relative distances ||eta g|| / ||w||, `(R,)`.
        twin: The same loss computed in contiguous memory, where its second derivative may be cheaper. `loss` replaces
            it if its gradient at w differs.
        known: The loss and its gradient at w, if already computed in the same way; used only with `twin`.

    Returns:
        Float64 arrays. Scalars at w: `loss`, `grad_norm` ||g||, `weight_norm` ||w||, `hessian_norm` ||Hg|| / ||g|| and
        `sharpness` g'Hg / ||g||^2. For each of `etas`, `(J,)`: `eta`, `moved_loss` L(w - eta g), `moved_grad_norm`
        ||g'||, `grad_distance` ||g' - g||, `grad_cosine` of the angle between g and g', `beta` ||g' - g|| /
        (eta ||g||) and `curvature` (L' - L + eta ||g||^2) / (eta^2 ||g||^2 / 2). For each of `relative_distances`,
        `(R,)`: the same quantities with the prefix `relative_`.
    """
    if twin is None:
        value, gradient, product = functional.along_gradient(loss, weights)
    else:
        value, gradient = known or value_and_gradient(loss, weights)
        # Dropout of feature maps draws in memory order, so its mask differs between layouts.
        _, other, product = functional.along_gradient(twin, {name: part.contiguous() for name, part in weights.items()})
        if not bool(norm(difference(other, gradient)) <= _TWINS * norm(gradient)):
            product = functional.hessian_vector_product(loss, weights, gradient)
    grad_norm, weight_norm = _float64(norm(gradient)), _float64(norm(weights))
    quantities = {
        "loss": _float64(value),
        "grad_norm": grad_norm,
        "weight_norm": weight_norm,
        "hessian_norm": _float64(norm(product)) / grad_norm,
        "sharpness": _float64(dot(gradient, product)) / grad_norm**2,
    }
    sizes = torch.tensor(etas, dtype=torch.float64)
    relative = torch.tensor(relative_distances, dtype=torch.float64) * weight_norm / grad_norm
    quantities |= _along(loss, weights, value, gradient, sizes)
    quantities |= {
        f"{RELATIVE}{name}": values for name, values in _along(loss, weights, value, gradient, relative).items()
    }
    return {name: values.numpy() for name, values in quantities.items()}


def _along(loss: Loss, weights: Weights, value: Tensor, gradient: Weights, etas: Tensor) -> dict[str, Tensor]:
    """Return `MOVED_QUANTITIES` at w - eta g for each of `etas`, float64 `(J,)`."""
    measured = torch.empty(len(etas), 4, dtype=torch.float64)
    for row, eta in zip(measured, etas.tolist(), strict=True):
        moved_value, moved_gradient = value_and_gradient(loss, moved(weights, gradient, -eta))
        distance = norm(difference(moved_gradient, gradient))
        row[:] = torch.stack([moved_value, norm(moved_gradient), distance, dot(gradient, moved_gradient)])
    moved_loss, moved_norm, distance, product = measured.T.clone()
    before, grad_norm = _float64(value), _float64(norm(gradient))
    values = (
        etas,
        moved_loss,
        moved_norm,
        distance,
        product / (grad_norm * moved_norm),
        distance / (etas * grad_norm),
        (moved_loss - before + etas * grad_norm**2) / (etas**2 * grad_norm**2 / 2),
    )
    return dict(zip(MOVED_QUANTITIES, values, strict=True))


def _float64(value: Tensor) -> Tensor:
    return value.detach().double().cpu()
