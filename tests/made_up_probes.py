"""Probes as a run leaves them, of losses that a test chooses."""

from collections.abc import Sequence

import numpy as np

DISTANCES = (1e-4, 1e-3, 1e-2, 1e-1)


def quadratic_probes(
    matrix: np.ndarray,
    gradients: np.ndarray,
    *,
    lr: float,
    multiples: Sequence[float],
    steps: Sequence[int] | None = None,
    relative: bool = True,
) -> dict[str, np.ndarray]:
    """What `probes.npz` holds of a quadratic loss with a Hessian `(N, N)`, at points with gradients `(P, N)`."""
    number = len(gradients)
    norms = np.linalg.norm(gradients, axis=1)
    bent = gradients @ matrix
    sharpness = np.einsum("pi,pi->p", gradients, bent) / norms**2

    def moved(eta: np.ndarray) -> dict[str, np.ndarray]:
        after = gradients[:, None] - eta[..., None] * bent[:, None]
        distance = np.linalg.norm(after - gradients[:, None], axis=2)
        lengths = np.linalg.norm(after, axis=2)
        return {
            "eta": eta,
            "moved_loss": 1 - eta * norms[:, None] ** 2 * (1 - eta * sharpness[:, None] / 2),
            "moved_grad_norm": lengths,
            "grad_distance": distance,
            "grad_cosine": np.einsum("pi,pji->pj", gradients, after) / (norms[:, None] * lengths),
            "beta": distance / (eta * norms[:, None]),
            "curvature": np.broadcast_to(sharpness[:, None], eta.shape),
        }

    weight_norm = np.full(number, 10.0)
    told = {
        "step": np.arange(number) if steps is None else np.asarray(steps),
        "loss": np.ones(number),
        "grad_norm": norms,
        **moved(np.full((number, 1), lr) * np.asarray(multiples)),
        "lr": np.full(number, lr),
        "hessian_norm": np.linalg.norm(bent, axis=1) / norms,
        "sharpness": sharpness,
        "weight_norm": weight_norm,
        "seconds": np.full(number, 0.5),
    }
    if relative:
        of_relative = moved(np.asarray(DISTANCES) * (weight_norm / norms)[:, None])
        told |= {f"relative_{name}": values for name, values in of_relative.items()}
        told["relative_distance"] = np.asarray(DISTANCES)
    return told
