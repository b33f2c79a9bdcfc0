"""The three quantities of arXiv:1805.11604 from the probes of a run, and the limits of the third one.

At a probed step with weights w, gradient g and learning rate lr, over a grid of step sizes eta:

- loss variation: the range of L(w - eta g);
- gradient predictiveness: the range of ||g - g'||, where g' is the gradient at w - eta g;
- effective beta-smoothness: the largest ||g - g'|| / (eta ||g||).

The third quantity has a ceiling. If g' is orthogonal to g and no longer than g, ||g - g'|| is about ||g|| and the
quotient about 1/eta for every network. The largest quotient is then 1/eta_min, a property of the grid; `ceiling` and
`at_ceiling` mark such a beta. The limit eta -> 0, `hessian_norm` = ||Hg|| / ||g||, depends on the network only.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cifar_lab.machine.exit_codes import UsageError

PAPER_MULTIPLES = (0.5, 1.0, 2.0, 4.0)
"""The paper's step sizes, as multiples of the learning rate."""

# A beta is at the ceiling if beta * eta_min = ||g - g'|| / ||g|| lies within these bounds. A g' of at most a fifth of
# ||g|| gives 0.8 or more in any direction. A g' orthogonal to g and no longer than g gives 1 to the square root of 2,
# slightly more with a small negative correlation. Above 1.5, g' is longer than g, a property of the network.
CEILING_BOUNDS = (0.8, 1.5)
_RANGES = {"loss": "moved_loss", "gradient": "grad_distance"}
_FAR = (*_RANGES.values(), "beta", "moved_grad_norm")  # infinite where a loss or gradient is not finite


def has_grid(probes: Mapping[str, np.ndarray], multiples: Sequence[float]) -> bool:
    """Whether every probe has these step sizes, given as multiples of the learning rate."""
    return all(_near(probes, [multiple]).any(axis=1).all() for multiple in multiples)


def smoothness(probes: Mapping[str, np.ndarray], multiples: Sequence[float] | None = None) -> pd.DataFrame:
    """Compute the quantities of every probe with a finite loss, over a grid of step sizes.

    Quantities at a step size with a non-finite loss or gradient count as infinite.

    Args:
        probes: Arrays of `probes.npz`, for P probes and J step sizes.
        multiples: Grid of step sizes as multiples of the learning rate; None uses all step sizes.

    Returns:
        One row per probe, indexed by step, with the columns

        - `loss_low`, `loss_high`: lowest and highest loss; `loss_range`: loss variation
        - `gradient_low`, `gradient_high`: smallest and largest ||g - g'||; `gradient_range`: gradient predictiveness,
          lower is better
        - `beta`; `ceiling`: 1/eta_min; `at_ceiling`: whether the grid, not the network, determines `beta`
        - `cosine`: between g and g' at eta = lr; NaN without this step size or with a zero gradient
        - `grad_norm`: ||g||, and `moved_grad_norm`: largest ||g'||; the loss's local Lipschitz constant at the point
          and over the grid
        - `hessian_norm`: ||Hg|| / ||g||; `sharpness`: g'Hg / ||g||^2
        - `change_at_0.01` and so on: ||g - g'|| / ||g|| at each probed relative distance

    Raises:
        ValueError: A probe lacks a step size of the grid.
    """
    if multiples is not None and not has_grid(probes, multiples):
        sizes = ", ".join(f"{multiple:g}" for multiple in multiples)
        raise UsageError(f"the probes lack one of the step sizes {sizes} x lr; set probe.etas")
    finite = np.isfinite(probes["loss"])
    distances = probes.get("relative_distance", ())
    probes = {name: values[finite] for name, values in probes.items() if name != "relative_distance"}
    wanted = np.ones(probes["eta"].shape, dtype=bool) if multiples is None else _near(probes, multiples)
    far = {name: np.where(np.isfinite(probes[name]), probes[name], np.inf) for name in _FAR}

    def lowest(values: np.ndarray) -> np.ndarray:
        return np.where(wanted, values, np.inf).min(axis=1)

    def highest(values: np.ndarray) -> np.ndarray:
        return np.where(wanted, values, -np.inf).max(axis=1)

    columns: dict[str, np.ndarray] = {}
    for name, source in _RANGES.items():
        columns |= {f"{name}_low": lowest(far[source]), f"{name}_high": highest(far[source])}
    beta, ceiling, at_lr = highest(far["beta"]), 1 / lowest(probes["eta"]), _near(probes, [1.0])
    cosine = probes["grad_cosine"][np.arange(len(at_lr)), at_lr.argmax(axis=1)]
    columns |= {
        "beta": beta,
        "ceiling": ceiling,
        "at_ceiling": (beta / ceiling >= CEILING_BOUNDS[0]) & (beta / ceiling <= CEILING_BOUNDS[1]),
        "cosine": np.where(at_lr.any(axis=1), cosine, np.nan),
        "grad_norm": probes["grad_norm"],
        "moved_grad_norm": highest(far["moved_grad_norm"]),
        "hessian_norm": probes["hessian_norm"],
        "sharpness": probes["sharpness"],
    }
    for name in _RANGES:  # infinite if both ends are
        low, high = columns[f"{name}_low"], columns[f"{name}_high"]
        columns[f"{name}_range"] = high - np.where(np.isfinite(low), low, 0)
    for place, distance in enumerate(distances):
        columns[f"change_at_{distance:g}"] = probes["relative_grad_distance"][:, place] / probes["grad_norm"]
    return pd.DataFrame(columns, index=pd.Index(probes["step"], name="step"))


def _near(probes: Mapping[str, np.ndarray], multiples: Sequence[float]) -> np.ndarray:
    """Mark, `(P, J)`, the step sizes that are among these multiples of the learning rate."""
    relative = probes["eta"] / probes["lr"][:, None]
    return np.isclose(relative[..., None], np.asarray(multiples), rtol=1e-4).any(axis=-1)
