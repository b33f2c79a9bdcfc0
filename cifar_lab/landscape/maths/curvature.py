"""How curved a loss is: the largest eigenvalues of its Hessian, and its curvature along the gradient."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from cifar_lab.landscape.maths.functional import Loss, Weights, along_gradient, dot, hessian_vector_product

_MOST_RESTARTS = 40


class Spectrum(NamedTuple):
    """The top of a Hessian's spectrum.

    Attributes:
        eigenvalues: `(count,)`, falling; NaN for those that did not converge, or where the loss is not finite.
        products: How many Hessian-vector products it took.
    """

    eigenvalues: np.ndarray
    products: int


def krylov_size(count: int, size: int) -> int:
    """How many vectors Lanczos keeps for `count` eigenvalues of a matrix of `size` rows; scipy's own choice."""
    return min(size, max(2 * count + 1, 20))


def top_eigenvalues(
    loss: Loss,
    weights: Weights,
    count: int,
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
    on_product: Callable[[], object] | None = None,
) -> Spectrum:
    """The largest eigenvalues of the loss's Hessian, by ARPACK's restarted Lanczos, which reorthogonalises in full.

    Args:
        loss: A function of weights, twice differentiable.
        weights: Where.
        count: How many eigenvalues; fewer than there are weights.
        tolerance: Relative, of an eigenvalue.
        seed: Of the vector that Lanczos starts from.
        on_product: Called after each Hessian-vector product.

    Raises:
        ValueError: `count` is below 1, or not below the number of weights.
    """
    size = sum(value.numel() for value in weights.values())
    if not 1 <= count < size:
        raise ValueError(f"{count} eigenvalues of {size} weights; at least 1, and fewer than there are weights")
    dtype = next(iter(weights.values())).dtype
    products = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        flat = _flat(hessian_vector_product(loss, weights, _shaped(torch.from_numpy(vector.ravel()), weights)))
        products += 1
        if on_product is not None:
            on_product()
        if not bool(torch.isfinite(flat).all()):
            raise FloatingPointError("the Hessian is not finite here")
        return flat.cpu().numpy()

    numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
    start = np.random.default_rng(seed).standard_normal(size).astype(numpy_dtype)
    operator = LinearOperator((size, size), matvec=product, dtype=numpy_dtype)
    try:
        found = eigsh(
            operator,
            k=count,
            which="LA",
            v0=start,
            ncv=krylov_size(count, size),
            tol=tolerance,
            maxiter=_MOST_RESTARTS,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence as error:
        found = np.real(error.eigenvalues)
    except FloatingPointError:
        found = np.empty(0)
    eigenvalues = np.full(count, np.nan)
    eigenvalues[: len(found)] = np.sort(found)[::-1]
    return Spectrum(eigenvalues, products)


def sharpness(losses: Iterable[Loss], weights: Weights) -> float:
    """The curvature along the gradient, `g'Hg / ||g||^2`, means over the losses above and below the line.

    Of one loss it is the Rayleigh quotient of its Hessian with its gradient. Of the losses of mini-batches it is the
    batch sharpness (arXiv:2412.20553), which stochastic gradient descent holds near 2 / lr at the edge of stability.

    Returns:
        In the units of an eigenvalue; NaN where the gradient is zero.
    """
    curved = squares = 0.0
    for loss in losses:
        _, gradient, product = along_gradient(loss, weights)
        curved += float(dot(gradient, product))
        squares += float(dot(gradient, gradient))
    return curved / squares if squares else float("nan")


def _flat(weights: Weights) -> Tensor:
    return torch.cat([value.flatten() for value in weights.values()])


def _shaped(flat: Tensor, weights: Weights) -> dict[str, Tensor]:
    sizes = [value.numel() for value in weights.values()]
    parts = flat.split(sizes)
    return {name: part.view(value.shape).to(value) for (name, value), part in zip(weights.items(), parts, strict=True)}
