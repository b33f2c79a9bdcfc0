"""`cifar-lab landscape interpolate`: networks between a run's initial and final weights, or between two runs'."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cifar_lab.landscape.maps.output import Written
from cifar_lab.landscape.maps.points import Points, digest
from cifar_lab.landscape.maps.settings import Settings
from cifar_lab.landscape.maps.subject import Subject, caption, check_fits, load, require_snapshots
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths.interpolation import barrier, interpolated, measured, with_weights
from cifar_lab.runs.outputs import write_figure, write_table


def interpolate(folders: Sequence[Path], settings: Settings, points: int) -> Written:
    """Measure and draw the networks between two.

    Args:
        folders: One run, from its first snapshot to its final weights; or two, between the final weights of both.
        settings: Of all subcommands.
        points: How many networks, the two ends included.

    Raises:
        ValueError: A run cannot be read, has no snapshots where it needs them, or the two have other networks.
    """
    subjects = load(folders, settings)
    subject, end = subjects[0], subjects[-1].loss().weights()
    if len(subjects) == 1:
        require_snapshots(subjects)
        first = next(iter(subject.epochs))
        start, ends = subject.weights(first), (f"epoch {first}", "final weights")
    else:
        start, ends = subject.loss().weights(), (subjects[0].label, subjects[1].label)
        check_fits(end, start, subjects[1].run.folder)
    shares = np.linspace(0, 1, points)
    job = _job(subject, start, end, shares, settings)
    compute("interpolate", [job])
    return _write(subjects, ends, shares, job.points.values(), settings)


def _job(
    subject: Subject, start: dict[str, Tensor], end: dict[str, Tensor], shares: np.ndarray, settings: Settings
) -> Job:
    training = [(subject.images[part], subject.labels[part]) for part in subject.batches()]
    held_images, held_labels = subject.held_out

    def evaluate(index: int, tick: Tick) -> dict[str, float]:
        model = with_weights(subject.model, interpolated(start, end, float(shares[index])), training)
        train = measured(model, subject.criterion, [(subject.images, subject.labels)])
        held_out = measured(model, subject.criterion, [subject.held_out])
        tick()
        return {
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "held_out_loss": held_out.loss,
            "held_out_accuracy": held_out.accuracy,
        }

    images = {"images": subject.images, "labels": subject.labels, "held": held_images, "held_labels": held_labels}
    identity = {**subject.identity(), "shares": shares.tolist(), "batch_size": int(subject.config.batch_size)}
    kept = Points(settings.output / "points", "interpolate", digest(identity, images, start, end), len(shares))
    return Job(subject.label, kept, evaluate, 1, timed(lambda: evaluate(0, lambda: None)))


def _write(
    subjects: Sequence[Subject],
    ends: tuple[str, str],
    shares: np.ndarray,
    values: dict[str, np.ndarray],
    settings: Settings,
) -> Written:
    from cifar_lab.landscape.maps import figures

    rows: list[dict[str, Any]] = [
        {"share": float(share), **{name: float(array[index]) for name, array in values.items()}}
        for index, share in enumerate(shares)
    ]
    held = subjects[0].held_out_name
    count = len(subjects[0].held_out[1])
    title = caption(subjects, settings, f"and {count:,} {held}; BatchNorm's statistics estimated again at each point")
    figure = figures.interpolation(shares, values, ends, held, title)
    files = [
        write_table(rows, settings.output / "interpolate.csv"),
        write_figure(figure, settings.output / "interpolate.png"),
    ]
    summary = {
        "start": ends[0],
        "end": ends[1],
        "train_barrier": barrier(shares, values["train_loss"]),
        "held_out_barrier": barrier(shares, values["held_out_loss"]),
    }
    return Written(files, [summary])
