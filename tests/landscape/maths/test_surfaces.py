import numpy as np
import pytest
import torch

from cifar_lab.landscape.maths.surfaces import common_levels, grid, losses_at

MATRIX = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -1.0, 5.0]], dtype=torch.float64)


def quadratic(weights):
    point = torch.cat([weights["a"], weights["b"]])
    return point @ MATRIX @ point / 2


def test_a_quadratics_surface_is_the_paraboloid():
    flat = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    axes = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]], dtype=torch.float64)
    origin, *directions = ({"a": vector[:2], "b": vector[2:]} for vector in (flat, *axes))
    points = grid(np.linspace(-1, 1, 5), np.linspace(-3, 3, 4))
    moved = flat + torch.from_numpy(points) @ axes
    expected = ((moved @ MATRIX) * moved).sum(dim=1) / 2
    np.testing.assert_allclose(losses_at(quadratic, origin, directions, points), expected)


def test_a_grid_runs_through_its_last_axis_first():
    assert grid(np.array([1.0, 2.0]), np.array([5.0, 6.0])).tolist() == [[1, 5], [1, 6], [2, 5], [2, 6]]


def test_what_is_not_finite_stays_so():
    values = losses_at(
        lambda w: 1 / w["a"].sum(), {"a": torch.zeros(1)}, [{"a": torch.ones(1)}], np.array([[0.0], [1]])
    )
    assert values.tolist() == [np.inf, 1.0]


def test_levels_are_common_and_leave_out_the_heights():
    first, second = np.geomspace(0.01, 1, 50), np.array([*np.geomspace(0.1, 2, 40), 1e9, np.inf, np.nan, 0.0])
    levels = common_levels([first, second], count=7)
    assert levels[0] == pytest.approx(0.01)
    assert 0.5 < levels[-1] < 2
    np.testing.assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])


def test_levels_of_a_flat_surface_still_rise():
    assert (np.diff(common_levels([np.full((3, 3), 2.3)])) > 0).all()
