"""`cifar-lab landscape curvature`, `covariate-shift` and `interpolate`: along a run, or between two networks."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from cifar_lab.config import build_optimizer
from cifar_lab.landscape.maps import figures
from cifar_lab.landscape.maps.measured_run import (
    MeasuredRun,
    Outputs,
    Rows,
    Settings,
    at_epochs,
    caption,
    check_fits,
    load,
)
from cifar_lab.landscape.maps.points import Job, Tick, compute, timed
from cifar_lab.landscape.maths import covariate_shift as shifts
from cifar_lab.landscape.maths.curvature import krylov_size, sharpness, spectrum_ends
from cifar_lab.landscape.maths.functional import Weights, hessian_vector_product, norm, value_and_gradient
from cifar_lab.landscape.maths.interpolation import barrier, interpolated, loss_and_accuracy, with_weights
from cifar_lab.optimizers import relative_rates

if TYPE_CHECKING:
    from omegaconf import DictConfig

_TOLERANCE = 1e-3


def curvature(folders: Sequence[Path], settings: Settings, at: str | None, eigenvalues: int) -> Outputs:
    """Compute and draw the curvature of runs at the epochs `at` (see `at_epochs`).

    Raises:
        ValueError: A run cannot be read, or lacks snapshots of these epochs.
    """
    measured_runs = load(folders, settings)
    places = at_epochs(measured_runs, at)
    jobs = [_curvature_job(measured, epoch, eigenvalues) for measured, epoch in places]
    compute("curvature", jobs)
    rows = [_curvature_row(*place, job.points.values()) for place, job in zip(places, jobs, strict=True)]
    title = caption(measured_runs, "BatchNorm with their statistics; eigenvalues of the Hessian")
    return settings.write("curvature", rows, lambda: figures.curvature(rows, title)), rows


def _curvature_job(measured: MeasuredRun, epoch: int, count: int) -> Job:
    loss, weights, batches = measured.loss(), measured.weights(epoch), measured.batches()
    seed = measured.settings.seed

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        value, gradient = value_and_gradient(loss, weights)
        values: dict[str, Any] = {"loss": value.cpu(), "gradient_norm": norm(gradient).cpu()}
        tick()
        values["sharpness"] = sharpness([loss], weights)
        tick()
        values["batch_sharpness"] = sharpness((measured.loss(part) for part in batches), weights)
        tick()
        ends = spectrum_ends(loss, weights, count, tolerance=_TOLERANCE, seed=seed, on_product=tick)
        return values | dict(zip(("eigenvalues", "smallest_eigenvalue", "products"), ends, strict=True))

    spans = [(part.start, part.stop) for part in batches]
    identity = {"count": count, "ends": 2, "tolerance": _TOLERANCE, "seed": seed, "batches": spans}
    size = sum(value.numel() for value in weights.values())
    vectors = krylov_size(count, size) + krylov_size(1, size)
    return Job(
        f"epoch {epoch} of {measured.label}",
        measured.points("curvature", 1, identity, weights),
        evaluate,
        3 + 3 * vectors // 2,  # Lanczos usually restarts at most twice
        timed(lambda: hessian_vector_product(loss, weights, weights)),
    )


def _curvature_row(measured: MeasuredRun, epoch: int, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    lr = measured.learning_rate(epoch)
    return {
        "run": measured.label,
        "epoch": epoch,
        **{name: float(values[name][0]) for name in ("loss", "gradient_norm", "sharpness", "batch_sharpness")},
        **{f"eigenvalue_{number}": value for number, value in enumerate(values["eigenvalues"][0].tolist(), 1)},
        "smallest_eigenvalue": float(values["smallest_eigenvalue"][0]),
        "lr": lr,
        "two_over_lr": 2 / lr if lr > 0 else float("nan"),
        "products": int(values["products"][0]),
    }


def covariate_shift(folders: Sequence[Path], settings: Settings, at: str | None) -> Outputs:
    """Compute and draw the internal covariate shift of runs at the epochs `at` (see `at_epochs`).

    Raises:
        ValueError: A run cannot be read, or lacks snapshots of these epochs.
    """
    measured_runs = load(folders, settings)
    places = at_epochs(measured_runs, at)
    jobs = [_shift_job(measured, epoch) for measured, epoch in places]
    compute("covariate-shift", jobs)
    values_of_jobs = [job.points.values() for job in jobs]
    rows = [row for place, values in zip(places, values_of_jobs, strict=True) for row in _shift_rows(*place, values)]
    count = min(int(measured_runs[0].config.batch_size), settings.images)
    how = f"one step on a batch of {count:,} of them, BatchNorm with its statistics"
    title = caption(measured_runs, how)
    return settings.write("covariate_shift", rows, lambda: figures.covariate_shift(rows, title)), rows


def optimizer_step(
    config: "DictConfig", model: nn.Module, weights: Weights, gradient: Weights, lr: float
) -> dict[str, Tensor]:
    """Return the weights after one step of a run's optimizer from a new state, with the run's gradient clipping.

    `lr` is the rate of the optimizer's first group; the other groups keep their ratio to it. NaN uses the
    configuration's rate.
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


def _shift_job(measured: MeasuredRun, epoch: int) -> Job:
    weights, part = measured.weights(epoch), measured.batches()[0]
    loss, lr = measured.loss(part), measured.learning_rate(epoch)
    layers = list(shifts.layers(weights).values())
    identity = {"lr": lr, **{key: str(measured.config.get(key)) for key in ("optimizer", "grad_clip")}}

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        def ticking(weights: Weights) -> Tensor:
            tick()
            return loss(weights)

        stepped = optimizer_step(measured.config, measured.model, weights, value_and_gradient(ticking, weights)[1], lr)
        return shifts.covariate_shift(ticking, weights, stepped, layers)._asdict()

    points = measured.points("covariate-shift", 1, identity, weights, part=part)
    seconds = timed(lambda: value_and_gradient(loss, weights))
    return Job(f"epoch {epoch} of {measured.label}", points, evaluate, 1 + len(layers), seconds)


def _shift_rows(measured: MeasuredRun, epoch: int, values: Mapping[str, np.ndarray]) -> Rows:
    lr = measured.learning_rate(epoch)
    return [
        {"run": measured.label, "epoch": epoch, "layer": number + 1, "name": name}
        | {quantity: float(of_layers[0, number]) for quantity, of_layers in values.items()}
        | {"lr": lr}
        for number, name in enumerate(shifts.layers(dict(measured.model.named_parameters())))
    ]


def interpolate(folders: Sequence[Path], settings: Settings, points: int) -> Outputs:
    """Measure and draw `points` networks between a run's first snapshot and final weights, or between two runs.

    Raises:
        ValueError: A run cannot be read, a single run has no snapshots, or the networks of two runs differ.
    """
    measured_runs = load(folders, settings)
    measured, end = measured_runs[0], measured_runs[-1].loss().weights()
    if len(measured_runs) == 1:
        first = measured.snapshot_epochs()[0]
        start, ends = measured.weights(first), (f"epoch {first}", "final weights")
    else:
        start, ends = measured.loss().weights(), (measured_runs[0].label, measured_runs[1].label)
        check_fits(end, start, measured_runs[1].run.folder)
    shares = np.linspace(0, 1, points)
    job = _interpolation_job(measured, start, end, shares)
    compute("interpolate", [job])
    values = job.points.values()
    rows: Rows = [
        {"share": share, **{name: float(array[index]) for name, array in values.items()}}
        for index, share in enumerate(shares.tolist())
    ]
    held, count = measured.held_out_name, len(measured.held_out[1])
    title = caption(measured_runs, f"and {count:,} {held}; BatchNorm's statistics estimated again at each point")
    files = settings.write("interpolate", rows, lambda: figures.interpolation(shares, values, ends, held, title))
    barriers = {f"{part}_barrier": barrier(shares, values[f"{part}_loss"]) for part in ("train", "held_out")}
    return files, [{"start": ends[0], "end": ends[1], **barriers}]


def _interpolation_job(measured: MeasuredRun, start: Weights, end: Weights, shares: np.ndarray) -> Job:
    training = [(measured.images[part], measured.labels[part]) for part in measured.batches()]
    measured_on = {"train": (measured.images, measured.labels), "held_out": measured.held_out}

    def evaluate(index: int, tick: Tick) -> dict[str, float]:
        model = with_weights(measured.model, interpolated(start, end, float(shares[index])), training)
        values: dict[str, float] = {}
        for part, images in measured_on.items():
            values[f"{part}_loss"], values[f"{part}_accuracy"] = loss_and_accuracy(model, measured.criterion, [images])
        tick()
        return values

    identity = {"shares": shares.tolist(), "batch_size": int(measured.config.batch_size)}
    held_out = dict(zip(("held", "held_labels"), measured.held_out, strict=True))
    kept = measured.points("interpolate", len(shares), identity, held_out, start, end)
    return Job(measured.label, kept, evaluate, 1, timed(lambda: evaluate(0, lambda: None)))
