"""`cifar-lab landscape covariate-shift`: internal covariate shift and gradient norms, layer by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cifar_lab.config import build
from cifar_lab.landscape.maps.output import Written
from cifar_lab.landscape.maps.points import Points, digest
from cifar_lab.landscape.maps.settings import Settings
from cifar_lab.landscape.maps.subject import Subject, caption, chosen_epochs, learning_rate, load, require_snapshots
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths import covariate_shift as shifts
from cifar_lab.landscape.maths.functional import Weights, value_and_gradient
from cifar_lab.runs.outputs import write_figure, write_table

if TYPE_CHECKING:
    from omegaconf import DictConfig


def covariate_shift(folders: Sequence[Path], settings: Settings, at: str | None) -> Written:
    """Compute and draw internal covariate shift at some of the epochs of runs.

    Args:
        folders: The runs, which have snapshots.
        settings: Of all subcommands.
        at: Epochs joined by commas; None takes the first, the middle and the last.

    Raises:
        ValueError: A run cannot be read, has no snapshots, or not of these epochs.
    """
    subjects = load(folders, settings)
    require_snapshots(subjects)
    places = [(subject, epoch) for subject in subjects for epoch in chosen_epochs(subject, at)]
    jobs = [_job(subject, epoch, settings) for subject, epoch in places]
    compute("covariate-shift", jobs)
    rows = [row for place, job in zip(places, jobs, strict=True) for row in _rows(*place, job)]
    return _write(subjects, rows, settings)


def optimizer_step(config: "DictConfig", weights: Weights, gradient: Weights, lr: float) -> dict[str, Tensor]:
    """The weights after a step of a run's optimizer, its state new, with the gradient clipped as the run does.

    Args:
        config: The run's.
        weights: Before.
        gradient: Of the loss there.
        lr: Learning rate; NaN takes the configuration's.
    """
    parameters = {name: nn.Parameter(value.detach().clone()) for name, value in weights.items()}
    for name, parameter in parameters.items():
        parameter.grad = gradient[name].clone()
    optimizer = build(config.optimizer)(list(parameters.values()))
    if lr == lr:
        for group in optimizer.param_groups:
            group["lr"] = lr
    if config.get("grad_clip"):
        nn.utils.clip_grad_norm_(list(parameters.values()), config.grad_clip)
    optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def _job(subject: Subject, epoch: int, settings: Settings) -> Job:
    weights, part = subject.weights(epoch), subject.batches()[0]
    loss, lr = subject.loss(part), learning_rate(subject.run, epoch)
    layers = list(shifts.layers(weights).values())

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        stepped = optimizer_step(subject.config, weights, value_and_gradient(loss, weights)[1], lr)
        tick()
        shift = shifts.covariate_shift(_ticking(loss, tick), weights, stepped, layers)
        return shift._asdict()

    options = {key: str(subject.config.get(key)) for key in ("optimizer", "grad_clip")}
    images = {"images": subject.images[part], "labels": subject.labels[part]}
    return Job(
        f"epoch {epoch} of {subject.label}",
        Points(
            settings.output / "points",
            "covariate-shift",
            digest({**subject.identity(), **options, "lr": lr}, images, weights),
            1,
        ),
        evaluate,
        1 + len(layers),
        timed(lambda: value_and_gradient(loss, weights)),
    )


def _ticking(loss: Any, tick: Tick) -> Any:
    def counted(weights: Weights) -> torch.Tensor:
        tick()
        return loss(weights)

    return counted


def _rows(subject: Subject, epoch: int, job: Job) -> list[dict[str, Any]]:
    values = job.points.values()
    names = shifts.layers(dict(subject.model.named_parameters()))
    return [
        {
            "run": subject.label,
            "epoch": epoch,
            "layer": number,
            "name": name,
            **{quantity: float(array[0][number - 1]) for quantity, array in values.items()},
            "lr": learning_rate(subject.run, epoch),
        }
        for number, name in enumerate(names, start=1)
    ]


def _write(subjects: Sequence[Subject], rows: list[dict[str, Any]], settings: Settings) -> Written:
    from cifar_lab.landscape.maps import figures

    count = min(int(subjects[0].config.batch_size), settings.images)
    how = f"of which a batch of {count:,} is stepped on, BatchNorm on its own statistics"
    figure = figures.covariate_shift(rows, caption(subjects, settings, how))
    files = [
        write_table(rows, settings.output / "covariate_shift.csv"),
        write_figure(figure, settings.output / "covariate_shift.png"),
    ]
    return Written(files, rows)
