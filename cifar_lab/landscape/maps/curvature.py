"""`cifar-lab landscape curvature`: the Hessian's largest eigenvalues along a training, and 2 / lr."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab.landscape.maps.output import Written
from cifar_lab.landscape.maps.points import Points, digest
from cifar_lab.landscape.maps.settings import Settings
from cifar_lab.landscape.maps.subject import Subject, caption, chosen_epochs, learning_rate, load, require_snapshots
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths.curvature import krylov_size, sharpness, top_eigenvalues
from cifar_lab.landscape.maths.functional import hessian_vector_product, norm, value_and_gradient
from cifar_lab.runs.outputs import write_figure, write_table

_TOLERANCE = 1e-3


def curvature(folders: Sequence[Path], settings: Settings, at: str | None, eigenvalues: int) -> Written:
    """Compute and draw the curvature at some of the epochs of runs.

    Args:
        folders: The runs, which have snapshots.
        settings: Of all subcommands.
        at: Epochs joined by commas; None takes the first, the middle and the last.
        eigenvalues: How many.

    Raises:
        ValueError: A run cannot be read, has no snapshots, or not of these epochs.
    """
    subjects = load(folders, settings)
    require_snapshots(subjects)
    epochs = [chosen_epochs(subject, at) for subject in subjects]
    jobs = [
        _job(subject, epoch, settings, eigenvalues)
        for subject, several in zip(subjects, epochs, strict=True)
        for epoch in several
    ]
    compute("curvature", jobs)
    places = [(subject, epoch) for subject, several in zip(subjects, epochs, strict=True) for epoch in several]
    rows = [_row(subject, epoch, job.points.values()) for (subject, epoch), job in zip(places, jobs, strict=True)]
    return _write(subjects, rows, settings)


def _job(subject: Subject, epoch: int, settings: Settings, count: int) -> Job:
    loss, weights = subject.loss(), subject.weights(epoch)
    batches = subject.batches()
    identity = {
        **subject.identity(),
        "count": count,
        "tolerance": _TOLERANCE,
        "seed": settings.seed,
        "batches": [(part.start, part.stop) for part in batches],
    }
    key = digest(identity, {"images": subject.images, "labels": subject.labels}, weights)

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        value, gradient = value_and_gradient(loss, weights)
        tick()
        along = sharpness([loss], weights)
        tick()
        over_batches = sharpness((subject.loss(part) for part in batches), weights)
        tick()
        spectrum = top_eigenvalues(loss, weights, count, tolerance=_TOLERANCE, seed=settings.seed, on_product=tick)
        return {
            "loss": value.cpu(),
            "gradient_norm": norm(gradient).cpu(),
            "sharpness": along,
            "batch_sharpness": over_batches,
            "eigenvalues": spectrum.eigenvalues,
            "products": spectrum.products,
        }

    size = sum(value.numel() for value in weights.values())
    return Job(
        f"epoch {epoch} of {subject.label}",
        Points(settings.output / "points", "curvature", key, 1),
        evaluate,
        3 + 3 * krylov_size(count, size) // 2,  # as a rule Lanczos starts again once or twice, or not at all
        timed(lambda: hessian_vector_product(loss, weights, weights)),
    )


def _row(subject: Subject, epoch: int, values: dict[str, np.ndarray]) -> dict[str, Any]:
    rate = learning_rate(subject.run, epoch)
    eigenvalues = {f"eigenvalue_{number}": float(value) for number, value in enumerate(values["eigenvalues"][0], 1)}
    names = ("loss", "gradient_norm", "sharpness", "batch_sharpness")
    return {
        "run": subject.label,
        "epoch": epoch,
        **{name: float(values[name][0]) for name in names},
        **eigenvalues,
        "lr": rate,
        "two_over_lr": 2 / rate if rate > 0 else float("nan"),
        "products": int(values["products"][0]),
    }


def _write(subjects: Sequence[Subject], rows: list[dict[str, Any]], settings: Settings) -> Written:
    from cifar_lab.landscape.maps import figures

    title = caption(subjects, settings, "BatchNorm on their own statistics; eigenvalues of the Hessian")
    figure = figures.curvature(rows, title)
    files = [
        write_table(rows, settings.output / "curvature.csv"),
        write_figure(figure, settings.output / "curvature.png"),
    ]
    return Written(files, rows)
