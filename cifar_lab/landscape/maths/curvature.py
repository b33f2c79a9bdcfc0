"""Curvature of a loss: extreme eigenvalues of its Hessian, and curvature along the gradient."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from cifar_lab.landscape.maths.functional import Loss, Weights, along_gradient, dot, hessian_vector_product
from cifar_lab.machine.exit_codes import UsageError

_MOST_RESTARTS = 40


def krylov_size(count: int, size: int) -> int:
    """Return the number of Lanczos vectors for `count` eigenvalues of a matrix with `size` rows, scipy's default."""
    return min(size, max(2 * count + 1, 20))


def spectrum_ends(
    loss: Loss,
    weights: Weights,
    count: int,
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
    on_product: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, float, int]:
    """Compute the algebraically largest eigenvalues of the loss's Hessian and the smallest, negative at a saddle.

    Uses ARPACK's restarted Lanczos with full reorthogonalisation.

    Args:
        loss: Loss whose Hessian is taken.
        weights: Point at which it is taken.
        count: Number of largest eigenvalues.
        tolerance: Relative to each largest eigenvalue; for the smallest, to the distance between both ends.
        seed: Seed of the start vector of Lanczos.
        on_product: Called after each Hessian-vector product.

    Returns:
        The largest eigenvalues `(count,)` in descending order, the smallest one, and the number of Hessian-vector
        products. Eigenvalues are NaN if they did not converge or the Hessian is not finite.

    Raises:
        ValueError: `count` is below 1, or not below the number of weights.
    """
    sizes = [value.numel() for value in weights.values()]
    size = sum(sizes)
    if not 1 <= count < size:
        raise UsageError(f"{count} eigenvalues of {size} weights; choose at least 1 and fewer than {size}")
    products = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        parts = torch.from_numpy(vector.ravel()).split(sizes)
        named = zip(weights.items(), parts, strict=True)
        direction = {name: part.view(value.shape).to(value) for (name, value), part in named}
        flat = torch.cat([part.flatten() for part in hessian_vector_product(loss, weights, direction).values()])
        products += 1
        on_product()
        if not bool(torch.isfinite(flat).all()):
            raise FloatingPointError("the Hessian is not finite here")
        return flat.cpu().numpy()

    dtype = torch.empty(0, dtype=next(iter(weights.values())).dtype).numpy().dtype
    start = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    largest = _largest(product, start, count, tolerance)
    if np.isnan(largest[0]):
        return largest, float("nan"), products
    # The smallest is often near zero, where Lanczos does not converge to a relative tolerance. The shifted matrix
    # top * I - H turns it into the largest.
    top = dtype.type(largest[0])
    (distance,) = _largest(lambda vector: top * vector.ravel() - product(vector), start, 1, tolerance)
    return largest, float(largest[0] - distance), products


def _largest(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, count: int, tolerance: float
) -> np.ndarray:
    """Return the largest eigenvalues `(count,)` of a symmetric matrix, descending; NaN for unconverged ones."""
    size = len(start)
    try:
        computed = eigsh(
            LinearOperator((size, size), matvec=product, dtype=start.dtype),
            k=count,
            which="LA",
            v0=start,
            ncv=krylov_size(count, size),
            tol=tolerance,
            maxiter=_MOST_RESTARTS,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence as error:
        computed = np.real(error.eigenvalues)
    except FloatingPointError:
        computed = np.empty(0)
    eigenvalues = np.full(count, np.nan)
    eigenvalues[: len(computed)] = np.sort(computed)[::-1]
    return eigenvalues


def sharpness(losses: Iterable[Loss], weights: Weights) -> float:
    """Compute the curvature along the gradient: the mean of `g'Hg` over `losses` divided by the mean of `||g||^2`.

    For one loss, this is the Rayleigh quotient of the Hessian with the gradient. For the losses of mini-batches, it is
    the batch sharpness (arXiv:2412.20553), which stochastic gradient descent holds near 2 / lr at the edge of
    stability.

    Returns:
        Curvature in the units of an eigenvalue; NaN if the gradient is zero.
    """
    curved = squares = 0.0
    for loss in losses:
        _, gradient, product = along_gradient(loss, weights)
        curved += float(dot(gradient, product))
        squares += float(dot(gradient, gradient))
    return curved / squares if squares else float("nan")
