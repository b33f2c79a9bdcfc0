"""`cifar-lab landscape surface`: the loss around a run's final weights, and along its training."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cifar_lab.data.images import keyed_generator
from cifar_lab.landscape.maps.output import Written
from cifar_lab.landscape.maps.points import Points, digest
from cifar_lab.landscape.maps.settings import Settings
from cifar_lab.landscape.maps.subject import Subject, caption, load
from cifar_lab.landscape.maps.work import Job, Tick, compute, timed
from cifar_lab.landscape.maths.directions import Plane, random_direction, trajectory_plane
from cifar_lab.landscape.maths.functional import Loss, Weights
from cifar_lab.landscape.maths.surfaces import common_levels, grid, losses_at
from cifar_lab.runs.outputs import write_figure, write_table

if TYPE_CHECKING:
    from cifar_lab.landscape.maps.figures import Contour

# First part of a generator's key: what the numbers are for.
_DIRECTIONS = 4
_PROFILE_FINER = 4  # a line is cheap beside a plane
_MOST_SNAPSHOTS = 40  # of a trajectory; they are all in memory at once
_MARGIN = 0.25  # around a trajectory, as a share of its width


class _Slice(NamedTuple):
    """A line or a plane through a subject's weights: where its points are, and how they are computed."""

    axes: tuple[np.ndarray, ...]
    job: Job

    def losses(self) -> np.ndarray:
        return self.job.points.values()["loss"].reshape([len(axis) for axis in self.axes])


class _Slices(NamedTuple):
    """Those of a subject; `trajectory` and `plane` are None where it has too few snapshots."""

    profile: _Slice
    random: _Slice
    trajectory: _Slice | None
    plane: Plane | None
    epochs: list[int]


def surface(folders: Sequence[Path], settings: Settings, points: int, extent: float) -> Written:
    """Compute and draw the surfaces of one run, or of two at the same levels.

    Args:
        folders: The runs.
        settings: Of all subcommands.
        points: Along each side of a plane; a line has four times as many.
        extent: How far lines and planes of random directions go to either side; at 1 each filter has moved by its norm.

    Raises:
        ValueError: A run cannot be read.
    """
    subjects = load(folders, settings)
    slices = [_slices(subject, settings, points, extent) for subject in subjects]
    jobs = [cut.job for one in slices for cut in (one.profile, one.random, one.trajectory) if cut is not None]
    compute("surface", jobs)
    return _write(subjects, slices, settings)


def _slices(subject: Subject, settings: Settings, points: int, extent: float) -> _Slices:
    loss = subject.loss()
    weights = loss.weights()
    generator = keyed_generator(_DIRECTIONS, settings.seed)
    random = [random_direction(weights, generator) for _ in range(2)]
    seconds = timed(lambda: losses_at(loss, weights, random, np.zeros((1, 2))))

    def cut(name: str, directions: Sequence[Weights], axes: tuple[np.ndarray, ...]) -> _Slice:
        identity = {**subject.identity(), "axes": [axis.tolist() for axis in axes]}
        images = {"images": subject.images, "labels": subject.labels}
        kept = Points(
            settings.output / "points",
            f"surface-{name}",
            digest(identity, images, weights, *directions),
            len(grid(*axes)),
        )
        return _Slice(axes, _job(f"{name} of {subject.label}", kept, loss, weights, directions, axes, seconds))

    side = np.linspace(-extent, extent, points)
    fine = np.linspace(-extent, extent, _PROFILE_FINER * (points - 1) + 1)
    plane, epochs = _trajectory(subject)
    trajectory = None
    if plane is not None:
        low, high = plane.coordinates.min(axis=0), plane.coordinates.max(axis=0)
        margin = _MARGIN * (high - low)
        sides = np.linspace(low - margin, high + margin, points).T
        trajectory = cut("trajectory", plane.directions, (sides[0], sides[1]))
    return _Slices(cut("profile", random[:1], (fine,)), cut("plane", random, (side, side)), trajectory, plane, epochs)


def _job(
    name: str,
    kept: Points,
    loss: Loss,
    weights: Weights,
    directions: Sequence[Weights],
    axes: tuple[np.ndarray, ...],
    seconds: Callable[[], float],
) -> Job:
    places = grid(*axes)

    def evaluate(index: int, tick: Tick) -> dict[str, np.ndarray]:
        (value,) = losses_at(loss, weights, directions, places[index : index + 1])
        tick()
        return {"loss": value}

    return Job(name, kept, evaluate, 1, seconds)


def _trajectory(subject: Subject) -> tuple[Plane | None, list[int]]:
    """The plane of a subject's training, and the epochs that stand in it; says why where there is none."""
    there = list(subject.epochs)
    every = np.unique(np.linspace(0, len(there) - 1, min(len(there), _MOST_SNAPSHOTS)).round().astype(int))
    epochs = [there[index] for index in every] if there else []
    snapshots = [subject.weights(epoch) for epoch in epochs]
    try:
        return trajectory_plane(snapshots), epochs
    except ValueError as error:
        print(
            f"note: no trajectory of {subject.run.folder}: {error}; callbacks=snapshots keeps one an epoch",
            file=sys.stderr,
        )
        return None, []


def _write(subjects: Sequence[Subject], slices: Sequence[_Slices], settings: Settings) -> Written:
    from cifar_lab.landscape.maps import figures

    folder, pairs = settings.output, list(zip(subjects, slices, strict=True))
    files = [write_table([row for pair in pairs for row in _rows(*pair)], folder / "surface.csv")]
    trajectories = [
        {"run": subject.label, "epoch": epoch, "x": place[0], "y": place[1]}
        for subject, one in pairs
        if one.plane is not None
        for epoch, place in zip(one.epochs, one.plane.coordinates.tolist(), strict=True)
    ]
    if trajectories:
        files.append(write_table(trajectories, folder / "trajectory.csv"))
    title = caption(subjects, settings, "BatchNorm on their own statistics")
    panels = [_panels(*pair) for pair in pairs]
    profiles = {subject.label: (one.profile.axes[0], one.profile.losses()) for subject, one in pairs}
    levels = common_levels([panel.losses for row in panels for panel in row])
    pictures = {
        "surface.png": figures.contours(panels, levels, title),
        "surface_profile.png": figures.profiles(profiles, title),
    }
    files += [write_figure(figure, folder / name) for name, figure in pictures.items()]
    return Written(files, [_summary(*pair) for pair in pairs])


def _rows(subject: Subject, one: _Slices) -> Iterator[dict[str, Any]]:
    for kind, cut in (("profile", one.profile), ("plane", one.random), ("trajectory", one.trajectory)):
        if cut is not None:
            for place, value in zip(grid(*cut.axes).tolist(), cut.losses().ravel().tolist(), strict=True):
                x, y = (*place, None)[:2]
                yield {"run": subject.label, "kind": kind, "x": x, "y": y, "loss": value}


def _summary(subject: Subject, one: _Slices) -> dict[str, Any]:
    values = one.profile.losses()
    return {
        "run": subject.label,
        "loss": float(values[len(values) // 2]),
        "highest on the profile": float(values.max()),
        "variance of the training in its plane": None if one.plane is None else float(one.plane.explained.sum()),
    }


def _panels(subject: Subject, one: _Slices) -> "list[Contour]":
    from cifar_lab.landscape.maps.figures import Contour

    around = f"{subject.label}\naround its final weights"
    panels = [Contour(around, one.random.axes, one.random.losses(), ("random direction 1", "random direction 2"))]
    if one.trajectory is not None and one.plane is not None:
        names = [
            f"principal direction {number}, {share:.1%} of the variance"
            for number, share in enumerate(one.plane.explained.tolist(), start=1)
        ]
        along = f"{subject.label}\nalong its training, epochs {one.epochs[0]} to {one.epochs[-1]}"
        cut, way = one.trajectory, one.plane.coordinates
        panels.append(Contour(along, cut.axes, cut.losses(), (names[0], names[1]), way))
    return panels
