"""`cifar-lab landscape surface`: the loss around a run's final weights and along its training."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar_lab.data.images import keyed_generator
from cifar_lab.landscape.maps import figures
from cifar_lab.landscape.maps.figures import Contour
from cifar_lab.landscape.maps.measured_run import MeasuredRun, Outputs, Rows, Settings, caption, load
from cifar_lab.landscape.maps.points import Job, Tick, compute, timed
from cifar_lab.landscape.maths import surfaces
from cifar_lab.landscape.maths.functional import Weights

# First part of a generator's key: the purpose of the random numbers.
_DIRECTIONS = 4
_PROFILE_FINER = 4  # a line is cheap compared with a plane
_MOST_SNAPSHOTS = 40  # per trajectory; all are in memory at once
_MARGIN = 0.25  # around a trajectory, as a fraction of its width


class _Slice(NamedTuple):
    """A line or plane through a run's weights: coordinates of its points, and the job that computes them."""

    axes: tuple[np.ndarray, ...]
    job: Job

    def losses(self) -> np.ndarray:
        return self.job.points.values()["loss"].reshape([len(axis) for axis in self.axes])


class _Slices(NamedTuple):
    """A run's slices `profile`, `plane` and, with enough snapshots, `trajectory`, the plane of its training."""

    measured: MeasuredRun
    cuts: dict[str, _Slice]
    plane: surfaces.Plane | None
    epochs: list[int]


def surface(folders: Sequence[Path], settings: Settings, points: int, extent: float) -> Outputs:
    """Compute and draw the surfaces of one run, or of two at the same levels.

    A plane has `points` along each side, a line four times as many. Random directions extend to `extent` on either
    side; at 1 each filter moves by its own norm.

    Raises:
        ValueError: A run cannot be read.
    """
    measured_runs = load(folders, settings)
    slices = [_slices(measured, points, extent) for measured in measured_runs]
    compute("surface", [cut.job for one in slices for cut in one.cuts.values()])
    files = settings.write_table("surface", [row for one in slices for row in _rows(one)])
    if trajectories := [row for one in slices for row in _trajectory_rows(one)]:
        files += settings.write_table("trajectory", trajectories)
    title = caption(measured_runs, "BatchNorm with their statistics")
    panels = [_panels(one) for one in slices]
    levels = surfaces.common_levels([panel.losses for row in panels for panel in row])
    lines = {one.measured.label: (cut.axes[0], cut.losses()) for one in slices for cut in [one.cuts["profile"]]}
    files += settings.write_figure("surface", lambda: figures.contours(panels, levels, title))
    files += settings.write_figure("surface_profile", lambda: figures.profiles(lines, title))
    return files, [_summary(one) for one in slices]


def _slices(measured: MeasuredRun, points: int, extent: float) -> _Slices:
    loss = measured.loss()
    weights = loss.weights()
    generator = keyed_generator(_DIRECTIONS, measured.settings.seed)
    random = [surfaces.random_direction(weights, generator) for _ in range(2)]
    seconds = timed(lambda: surfaces.losses_at(loss, weights, random, np.zeros((1, 2))))

    def cut(name: str, directions: Sequence[Weights], *axes: np.ndarray) -> _Slice:
        places = surfaces.grid(*axes)

        def evaluate(index: int, tick: Tick) -> dict[str, np.ndarray]:
            (value,) = surfaces.losses_at(loss, weights, directions, places[index : index + 1])
            tick()
            return {"loss": value}

        identity = {"axes": [axis.tolist() for axis in axes]}
        kept = measured.points(f"surface-{name}", len(places), identity, weights, *directions)
        return _Slice(axes, Job(f"{name} of {measured.label}", kept, evaluate, 1, seconds))

    side = np.linspace(-extent, extent, points)
    fine = np.linspace(-extent, extent, _PROFILE_FINER * (points - 1) + 1)
    cuts = {"profile": cut("profile", random[:1], fine), "plane": cut("plane", random, side, side)}
    plane, epochs = _trajectory(measured)
    if plane is not None:
        low, high = plane.coordinates.min(axis=0), plane.coordinates.max(axis=0)
        margin = _MARGIN * (high - low)
        cuts["trajectory"] = cut("trajectory", plane.directions, *np.linspace(low - margin, high + margin, points).T)
    return _Slices(measured, cuts, plane, epochs)


def _trajectory(measured: MeasuredRun) -> tuple[surfaces.Plane | None, list[int]]:
    """Return the plane of a run's training and the epochs of its snapshots; print a note if there is no plane."""
    there = list(measured.epochs)
    every = np.unique(np.linspace(0, len(there) - 1, min(len(there), _MOST_SNAPSHOTS)).round().astype(int))
    epochs = [there[index] for index in every]
    try:
        return surfaces.trajectory_plane([measured.weights(epoch) for epoch in epochs]), epochs
    except ValueError as error:
        print(
            f"note: no trajectory of {measured.run.folder}: {error}; callbacks=snapshots keeps one per epoch",
            file=sys.stderr,
        )
        return None, []


def _rows(one: _Slices) -> Rows:
    return [
        {"run": one.measured.label, "kind": kind, "x": place[0], "y": place[1] if place[1:] else None, "loss": value}
        for kind, cut in one.cuts.items()
        for place, value in zip(surfaces.grid(*cut.axes).tolist(), cut.losses().ravel().tolist(), strict=True)
    ]


def _trajectory_rows(one: _Slices) -> Rows:
    places = [] if one.plane is None else one.plane.coordinates.tolist()
    return [
        {"run": one.measured.label, "epoch": epoch, "x": place[0], "y": place[1]}
        for epoch, place in zip(one.epochs, places, strict=True)
    ]


def _summary(one: _Slices) -> dict[str, Any]:
    values = one.cuts["profile"].losses()
    return {
        "run": one.measured.label,
        "loss": float(values[len(values) // 2]),
        "highest on the profile": float(values.max()),
        "variance of the training in its plane": None if one.plane is None else float(one.plane.explained.sum()),
    }


def _panels(one: _Slices) -> list[Contour]:
    around, label = one.cuts["plane"], one.measured.label
    names = ("random direction 1", "random direction 2")
    panels = [Contour(f"{label}\naround its final weights", around.axes, around.losses(), names)]
    if one.plane is not None:
        along, shares = one.cuts["trajectory"], one.plane.explained.tolist()
        first, second = (f"principal direction {i}, {share:.1%} of the variance" for i, share in enumerate(shares, 1))
        title = f"{label}\nalong its training, epochs {one.epochs[0]} to {one.epochs[-1]}"
        panels.append(Contour(title, along.axes, along.losses(), (first, second), one.plane.coordinates))
    return panels
