"""`cifar-lab landscape curvature`: the Hessian's largest eigenvalues along a training, and 2 / lr."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_lab.landscape.maps import figures
from cifar_lab.landscape.maps.subject import Settings, Subject, Written, at_epochs, caption, load
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths.curvature import krylov_size, sharpness, top_eigenvalues
from cifar_lab.landscape.maths.functional import hessian_vector_product, norm, value_and_gradient

_TOLERANCE = 1e-3


def curvature(folders: Sequence[Path], settings: Settings, at: str | None, eigenvalues: int) -> Written:
    """Compute and draw the curvature at the epochs `at` of runs; None: the first, the middle and the last.

    Raises:
        ValueError: A run cannot be read, has no snapshots, or not of these epochs.
    """
    subjects = load(folders, settings)
    places = at_epochs(subjects, at)
    jobs = [_job(subject, epoch, eigenvalues) for subject, epoch in places]
    compute("curvature", jobs)
    rows = [_row(*place, job) for place, job in zip(places, jobs, strict=True)]
    title = caption(subjects, "BatchNorm on their own statistics; eigenvalues of the Hessian")
    return settings.write("curvature", rows, figures.curvature(rows, title)), rows


def _job(subject: Subject, epoch: int, count: int) -> Job:
    loss, weights, batches = subject.loss(), subject.weights(epoch), subject.batches()
    seed = subject.settings.seed

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        value, gradient = value_and_gradient(loss, weights)
        tick()
        along = sharpness([loss], weights)
        tick()
        over_batches = sharpness((subject.loss(part) for part in batches), weights)
        tick()
        largest, products = top_eigenvalues(loss, weights, count, tolerance=_TOLERANCE, seed=seed, on_product=tick)
        return {
            "loss": value.cpu(),
            "gradient_norm": norm(gradient).cpu(),
            "sharpness": along,
            "batch_sharpness": over_batches,
            "eigenvalues": largest,
            "products": products,
        }

    spans = [(part.start, part.stop) for part in batches]
    identity = {"count": count, "tolerance": _TOLERANCE, "seed": seed, "batches": spans}
    size = sum(value.numel() for value in weights.values())
    return Job(
        f"epoch {epoch} of {subject.label}",
        subject.points("curvature", 1, identity, weights),
        evaluate,
        3 + 3 * krylov_size(count, size) // 2,  # as a rule Lanczos starts again once or twice, or not at all
        timed(lambda: hessian_vector_product(loss, weights, weights)),
    )


def _row(subject: Subject, epoch: int, job: Job) -> dict[str, Any]:
    values, rate = {name: array[0] for name, array in job.points.values().items()}, subject.learning_rate(epoch)
    return {
        "run": subject.label,
        "epoch": epoch,
        **{name: float(values[name]) for name in ("loss", "gradient_norm", "sharpness", "batch_sharpness")},
        **{f"eigenvalue_{number}": value for number, value in enumerate(values["eigenvalues"].tolist(), 1)},
        "lr": rate,
        "two_over_lr": 2 / rate if rate > 0 else float("nan"),
        "products": int(values["products"]),
    }
