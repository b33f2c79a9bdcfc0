"""Runs with and without BatchNorm as training leaves them, with losses and quadratic probes that a test chooses."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cifar_lab.landscape.batch_norm.numbers import Outputs
from cifar_lab.landscape.maths.functional import Weights
from cifar_lab.landscape.maths.probing import probe
from cifar_lab.landscape.maths.smoothness import PAPER_MULTIPLES
from cifar_lab.runs import Run
from tests.claim_runs import row
from tests.published_runs import STEPS_PER_EPOCH, leave_run

RATES = (1e-4, 5e-4, 1e-3, 2e-3)
DISTANCES = (1e-3, 1e-2)
FINE = (1e-2, *PAPER_MULTIPLES)


def leave(
    folder: Path,
    *,
    bn: bool,
    lr: float,
    seed: int = 0,
    epochs: int = 4,
    accuracy: float = 0.8,
    changes: dict[str, Any] | None = None,
    **told: Any,
) -> Run:
    """Write a run of VGG-A on CIFAR-10 with ten steps per epoch, without recorded steps and probes."""
    of_row = row("vgg_a_bn,optimizer.lr=1e-3" if bn else "vgg_a,optimizer.lr=1e-3")
    kept = {"optimizer.lr": lr, **(changes or {})}
    options = {"study": "bn_landscape", "experiment": None, "model": "vgg_a", "data": "cifar10"}
    return leave_run(folder, of_row, accuracy, seed=seed, epochs=epochs, changes=kept, options=options, **told)


def losses(bn: bool, lr: float, steps: int, widen: float = 1.0) -> np.ndarray:
    """A falling loss times 2 to `2 + 2 * widen` over the rates; the spread is three times as large without BN."""
    place = RATES.index(lr) / (len(RATES) - 1)
    return np.exp(-np.arange(steps) / steps) * (2 + widen * (2 if bn else 6) * place)


def leave_band(
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    rates: Sequence[float] = RATES,
    epochs: int = 4,
    init: str = "xavier",
    widen: float = 0.0,
    changes: dict[str, Any] | None = None,
    **told: Any,
) -> None:
    """Write runs of both networks; the band without BatchNorm is three times as wide in every seed.

    This holds for all four rates, and for only the first and the last. The band grows by `widen` from seed to seed, so
    that its interval is not a point.
    """
    for seed, bn, lr in itertools.product(seeds, (True, False), rates):
        name = f"{'bn' if bn else 'none'}_{init}_{lr:g}_{seed}"
        kept = {"model.init": init, **(changes or {})}
        run = leave(folder / name, bn=bn, lr=lr, seed=seed, epochs=epochs, changes=kept, **told)
        spread = 1 if bn else 1 + widen * seed
        run.write_steps({"loss": losses(bn, lr, epochs * STEPS_PER_EPOCH, spread).astype(np.float32)})


def diverge(run: Run) -> None:
    """Turn a finished run into a diverged one."""
    run.result_file.unlink()
    run.fail("diverged", RuntimeError("the loss is nan in step 4"))


def leave_probed(
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    inits: Sequence[str] = ("xavier", "he"),
    lr: float = 0.1,
    sharper: float = 4.0,
    noise: float = 0.0,
    probes: int = 6,
    **told: Any,
) -> None:
    """Write runs of both networks with quadratic probes; without BatchNorm the Hessian is `sharper` times as large."""
    for seed in seeds:
        drawn = np.random.default_rng(seed)
        gradients = drawn.normal(size=(probes, 3))
        steps = np.unique(np.geomspace(1, 10 * probes, probes).astype(int) - 1 + np.arange(probes))
        for init, bn in itertools.product(inits, (True, False)):
            changes = {"model.init": init, "scheduler.total_iters": 0}
            run = leave(folder / f"{bn}_{init}_{seed}", bn=bn, lr=lr, seed=seed, changes=changes, **told)
            matrix = np.diag([0.2, 0.5, 1.0]) * (1.0 if bn else sharper * (1 + noise * seed))
            run.write_probes(quadratic_probes(matrix, gradients, lr=lr, multiples=FINE, steps=steps))
            run.write_steps({"loss": np.ones(40, dtype=np.float32)})


def quadratic_probes(
    matrix: np.ndarray, gradients: np.ndarray, lr: float, multiples: Sequence[float], steps: Sequence[int] = (0, 1)
) -> dict[str, np.ndarray]:
    """Return the arrays of `probes.npz` for a quadratic loss with Hessian `(3, 3)` and gradients `(P, 3)`."""
    point, hessian = torch.tensor([10.0, 0, 0], dtype=torch.float64), torch.from_numpy(matrix)

    def loss(gradient: torch.Tensor, weights: Weights) -> torch.Tensor:
        way = weights["w"] - point
        return 1 + gradient @ way + way @ hessian @ way / 2

    etas = [lr * multiple for multiple in multiples]
    probed = [probe(partial(loss, one), {"w": point}, etas, DISTANCES) for one in torch.from_numpy(gradients)]
    told = {name: np.stack([one[name] for one in probed]) for name in probed[0]}
    alike = {"lr": np.full(len(probed), lr), "seconds": np.full(len(probed), 0.5)}
    return {**told, **alike, "step": np.asarray(steps), "relative_distance": np.array(DISTANCES)}


def check_written(outputs: Outputs, folder: Path, names: set[str], printed: str) -> None:
    """Check a comparison's files by name, the size of its figure, its first table, and the printed lines."""
    assert {path.name for path in folder.iterdir()} == names
    assert printed.splitlines() == outputs.sentences
    with Image.open(outputs.figures[0]) as picture:
        assert min(picture.size) > 500
    name, table = next(iter(outputs.tables.items()))
    pd.testing.assert_frame_equal(pd.read_csv(folder / f"{name}.csv"), table)
