"""`cifar-lab landscape covariate-shift`: internal covariate shift and gradient norms, layer by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cifar_lab.config import build
from cifar_lab.landscape.maps import figures
from cifar_lab.landscape.maps.subject import Rows, Settings, Subject, Written, at_epochs, caption, load
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths import covariate_shift as shifts
from cifar_lab.landscape.maths.functional import Weights, value_and_gradient

if TYPE_CHECKING:
    from omegaconf import DictConfig


def covariate_shift(folders: Sequence[Path], settings: Settings, at: str | None) -> Written:
    """Compute and draw internal covariate shift at the epochs `at` of runs; None: the first, the middle and the last.

    Raises:
        ValueError: A run cannot be read, has no snapshots, or not of these epochs.
    """
    subjects = load(folders, settings)
    places = at_epochs(subjects, at)
    jobs = [_job(subject, epoch) for subject, epoch in places]
    compute("covariate-shift", jobs)
    rows = [row for place, job in zip(places, jobs, strict=True) for row in _rows(*place, job)]
    count = min(int(subjects[0].config.batch_size), settings.images)
    how = f"of which a batch of {count:,} is stepped on, BatchNorm on its own statistics"
    figure = figures.covariate_shift(rows, caption(subjects, how))
    return settings.write("covariate_shift", rows, figure), rows


def optimizer_step(config: "DictConfig", weights: Weights, gradient: Weights, lr: float) -> dict[str, Tensor]:
    """The weights after a step of a run's optimizer with a new state, the gradient clipped as the run does.

    Args:
        config: The run's.
        weights: Before the step.
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


def _job(subject: Subject, epoch: int) -> Job:
    weights, part = subject.weights(epoch), subject.batches()[0]
    loss, lr = subject.loss(part), subject.learning_rate(epoch)
    layers = list(shifts.layers(weights).values())

    def evaluate(_: int, tick: Tick) -> dict[str, Any]:
        def ticking(weights: Weights) -> Tensor:
            tick()
            return loss(weights)

        stepped = optimizer_step(subject.config, weights, value_and_gradient(ticking, weights)[1], lr)
        return shifts.covariate_shift(ticking, weights, stepped, layers)._asdict()

    identity = {"lr": lr, **{key: str(subject.config.get(key)) for key in ("optimizer", "grad_clip")}}
    points = subject.points("covariate-shift", 1, identity, weights, part=part)
    seconds = timed(lambda: value_and_gradient(loss, weights))
    return Job(f"epoch {epoch} of {subject.label}", points, evaluate, 1 + len(layers), seconds)


def _rows(subject: Subject, epoch: int, job: Job) -> Rows:
    names = shifts.layers(dict(subject.model.named_parameters()))
    lr = subject.learning_rate(epoch)
    values = {quantity: array[0].tolist() for quantity, array in job.points.values().items()}
    return [
        {"run": subject.label, "epoch": epoch, "layer": number + 1, "name": name}
        | {quantity: array[number] for quantity, array in values.items()}
        | {"lr": lr}
        for number, name in enumerate(names)
    ]
