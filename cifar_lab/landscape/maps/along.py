"""`cifar-lab landscape curvature`, `covariate-shift` and `interpolate`: along a training, or between two networks."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from cifar_lab.config import build_optimizer
from cifar_lab.landscape.maps import figures
from cifar_lab.landscape.maps.subject import Rows, Settings, Subject, Written, at_epochs, caption, check_fits, load
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths import covariate_shift as shifts
from cifar_lab.landscape.maths.curvature import krylov_size, sharpness, spectrum_ends
from cifar_lab.landscape.maths.functional import Weights, hessian_vector_product, norm, value_and_gradient
from cifar_lab.landscape.maths.interpolation import barrier, interpolated, loss_and_accuracy, with_weights
from cifar_lab.optimizers import relative_rates

if TYPE_CHECKING:
    from omegaconf import DictConfig

_TOLERANCE = 1e-3


def curvature(folders: Sequence[Path], settings: Settings, at: str | None, eigenvalues: int) -> Written:
    """Compute and draw the curvature at the epochs `at` of runs; see `at_epochs`.

    Raises:
        ValueError: A run cannot be read, has no snapshots, or not of these epochs.
    """
    subjects = load(folders, settings)
    places = at_epochs(subjects, at)
    jobs = [_curvature_job(subject, epoch, eigenvalues) for subject, epoch in places]
    compute("curvature", jobs)
    rows = [_curvature_row(*place, job.points.values()) for place, job in zip(places, jobs, strict=True)]
    title = caption(subjects, "BatchNorm on their own statistics; eigenvalues of the Hessian")
    return settings.write("curvature", rows, lambda: figures.curvature(rows, title)), rows


def _curvature_job(subject: Subject, epoch: int, count: int) -> Job:
    loss, weights, batches = subject.loss(), subject.weights(epoch), subject.batches()
    seed = subject.settings.seed

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        value, gradient = value_and_gradient(loss, weights)
        values: dict[str, Any] = {"loss": value.cpu(), "gradient_norm": norm(gradient).cpu()}
        tick()
        values["sharpness"] = sharpness([loss], weights)
        tick()
        values["batch_sharpness"] = sharpness((subject.loss(part) for part in batches), weights)
        tick()
        ends = spectrum_ends(loss, weights, count, tolerance=_TOLERANCE, seed=seed, on_product=tick)
        return values | dict(zip(("eigenvalues", "smallest_eigenvalue", "products"), ends, strict=True))

    spans = [(part.start, part.stop) for part in batches]
    identity = {"count": count, "ends": 2, "tolerance": _TOLERANCE, "seed": seed, "batches": spans}
    size = sum(value.numel() for value in weights.values())
    vectors = krylov_size(count, size) + krylov_size(1, size)
    return Job(
        f"epoch {epoch} of {subject.label}",
        subject.points("curvature", 1, identity, weights),
        evaluate,
        3 + 3 * vectors // 2,  # as a rule Lanczos starts again once or twice, or not at all
        timed(lambda: hessian_vector_product(loss, weights, weights)),
    )


def _curvature_row(subject: Subject, epoch: int, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    lr = subject.learning_rate(epoch)
    return {
        "run": subject.label,
        "epoch": epoch,
        **{name: float(values[name][0]) for name in ("loss", "gradient_norm", "sharpness", "batch_sharpness")},
        **{f"eigenvalue_{number}": value for number, value in enumerate(values["eigenvalues"][0].tolist(), 1)},
        "smallest_eigenvalue": float(values["smallest_eigenvalue"][0]),
        "lr": lr,
        "two_over_lr": 2 / lr if lr > 0 else float("nan"),
        "products": int(values["products"][0]),
    }


def covariate_shift(folders: Sequence[Path], settings: Settings, at: str | None) -> Written:
    """Compute and draw internal covariate shift at the epochs `at` of runs; see `at_epochs`.

    Raises:
        ValueError: A run cannot be read, has no snapshots, or not of these epochs.
    """
    subjects = load(folders, settings)
    places = at_epochs(subjects, at)
    jobs = [_shift_job(subject, epoch) for subject, epoch in places]
    compute("covariate-shift", jobs)
    found = [job.points.values() for job in jobs]
    rows = [row for place, values in zip(places, found, strict=True) for row in _shift_rows(*place, values)]
    count = min(int(subjects[0].config.batch_size), settings.images)
    how = f"of which a batch of {count:,} is stepped on, BatchNorm on its own statistics"
    title = caption(subjects, how)
    return settings.write("covariate_shift", rows, lambda: figures.covariate_shift(rows, title)), rows


def optimizer_step(
    config: "DictConfig", model: nn.Module, weights: Weights, gradient: Weights, lr: float
) -> dict[str, Tensor]:
    """The weights after a step of a run's optimizer with a new state, the gradient clipped as the run does.

    The learning rate is that of the optimizer's first group, and the others' follow; NaN takes the configuration's.
    """
    model = copy.deepcopy(model)
    parameters = {name: model.get_parameter(name) for name in weights}
    for name, parameter in parameters.items():
        parameter.data = weights[name].detach().clone()
        parameter.grad = gradient[name].clone()
    optimizer = build_optimizer(config.optimizer)(model)
    if lr == lr:
        for group, rate in zip(optimizer.param_groups, relative_rates(optimizer), strict=True):
            group["lr"] = lr * rate
    if config.get("grad_clip"):
        nn.utils.clip_grad_norm_(list(parameters.values()), config.grad_clip)
    optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def _shift_job(subject: Subject, epoch: int) -> Job:
    weights, part = subject.weights(epoch), subject.batches()[0]
    loss, lr = subject.loss(part), subject.learning_rate(epoch)
    layers = list(shifts.layers(weights).values())
    identity = {"lr": lr, **{key: str(subject.config.get(key)) for key in ("optimizer", "grad_clip")}}

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        def ticking(weights: Weights) -> Tensor:
            tick()
            return loss(weights)

        stepped = optimizer_step(subject.config, subject.model, weights, value_and_gradient(ticking, weights)[1], lr)
        return shifts.covariate_shift(ticking, weights, stepped, layers)._asdict()

    points = subject.points("covariate-shift", 1, identity, weights, part=part)
    seconds = timed(lambda: value_and_gradient(loss, weights))
    return Job(f"epoch {epoch} of {subject.label}", points, evaluate, 1 + len(layers), seconds)


def _shift_rows(subject: Subject, epoch: int, values: Mapping[str, np.ndarray]) -> Rows:
    lr = subject.learning_rate(epoch)
    return [
        {"run": subject.label, "epoch": epoch, "layer": number + 1, "name": name}
        | {quantity: float(of_layers[0, number]) for quantity, of_layers in values.items()}
        | {"lr": lr}
        for number, name in enumerate(shifts.layers(dict(subject.model.named_parameters())))
    ]


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
    job = _interpolation_job(subject, start, end, shares)
    compute("interpolate", [job])
    values = job.points.values()
    rows: Rows = [
        {"share": share, **{name: float(array[index]) for name, array in values.items()}}
        for index, share in enumerate(shares.tolist())
    ]
    held, count = subject.held_out_name, len(subject.held_out[1])
    title = caption(subjects, f"and {count:,} {held}; BatchNorm's statistics estimated again at each point")
    files = settings.write("interpolate", rows, lambda: figures.interpolation(shares, values, ends, held, title))
    barriers = {f"{part}_barrier": barrier(shares, values[f"{part}_loss"]) for part in ("train", "held_out")}
    return files, [{"start": ends[0], "end": ends[1], **barriers}]


def _interpolation_job(subject: Subject, start: Weights, end: Weights, shares: np.ndarray) -> Job:
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
    kept = subject.points("interpolate", len(shares), identity, held_out, start, end)
    return Job(subject.label, kept, evaluate, 1, timed(lambda: evaluate(0, lambda: None)))
