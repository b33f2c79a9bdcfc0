"""`cifar-lab landscape interpolate`: networks between a run's initial and final weights, or between two runs'."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cifar_lab.landscape.maps import figures
from cifar_lab.landscape.maps.subject import Rows, Settings, Subject, Written, caption, check_fits, load
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths.functional import Weights
from cifar_lab.landscape.maths.interpolation import barrier, interpolated, loss_and_accuracy, with_weights


def interpolate(folders: Sequence[Path], settings: Settings, points: int) -> Written:
    """Measure and draw `points` networks from a run's first snapshot to its final weights, or between two runs.

    Raises:
        ValueError: A run cannot be read, has no snapshots where it needs them, or the two have other networks.
    """
    subjects = load(folders, settings)
    subject, end = subjects[0], subjects[-1].loss().weights()
    if len(subjects) == 1:
        first = subject.snapshot_epochs()[0]
        start, ends = subject.weights(first), (f"epoch {first}", "final weights")
    else:
        start, ends = subject.loss().weights(), (subjects[0].label, subjects[1].label)
        check_fits(end, start, subjects[1].run.folder)
    shares = np.linspace(0, 1, points)
    job = _job(subject, start, end, shares)
    compute("interpolate", [job])
    values = job.points.values()
    rows: Rows = [
        {"share": share, **{name: float(array[index]) for name, array in values.items()}}
        for index, share in enumerate(shares.tolist())
    ]
    held, count = subject.held_out_name, len(subject.held_out[1])
    title = caption(subjects, f"and {count:,} {held}; BatchNorm's statistics estimated again at each point")
    files = settings.write("interpolate", rows, figures.interpolation(shares, values, ends, held, title))
    barriers = {f"{part}_barrier": barrier(shares, values[f"{part}_loss"]) for part in ("train", "held_out")}
    return files, [{"start": ends[0], "end": ends[1], **barriers}]


def _job(subject: Subject, start: Weights, end: Weights, shares: np.ndarray) -> Job:
    training = [(subject.images[part], subject.labels[part]) for part in subject.batches()]
    measured_on = {"train": (subject.images, subject.labels), "held_out": subject.held_out}

    def evaluate(index: int, tick: Tick) -> dict[str, float]:
        model = with_weights(subject.model, interpolated(start, end, float(shares[index])), training)
        values: dict[str, float] = {}
        for part, images in measured_on.items():
            values[f"{part}_loss"], values[f"{part}_accuracy"] = loss_and_accuracy(model, subject.criterion, [images])
        tick()
        return values

    identity = {"shares": shares.tolist(), "batch_size": int(subject.config.batch_size)}
    held_out = dict(zip(("held", "held_labels"), subject.held_out, strict=True))
    points = subject.points("interpolate", len(shares), identity, held_out, start, end)
    return Job(subject.label, points, evaluate, 1, timed(lambda: evaluate(0, lambda: None)))
