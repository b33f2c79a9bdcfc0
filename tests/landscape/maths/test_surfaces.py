import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.landscape.maths.functional import NetworkLoss
from cifar_lab.landscape.maths.surfaces import common_levels, grid, losses_at, random_direction, trajectory_plane
from tests.landscape.maths.quadratics import MATRIX, POINT, by_name, quadratic


def test_a_quadratics_surface_is_a_paraboloid_and_values_that_are_not_finite_stay_so():
    axes = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]], dtype=torch.float64)
    points = grid(np.linspace(-1, 1, 5), np.linspace(-3, 3, 4))
    assert points[:5].tolist() == [[-1, -3], [-1, -1], [-1, 1], [-1, 3], [-0.5, -3]]
    moved = POINT + torch.from_numpy(points) @ axes
    expected = ((moved @ MATRIX) * moved).sum(dim=1) / 2
    np.testing.assert_allclose(losses_at(quadratic, by_name(POINT), list(map(by_name, axes)), points), expected)
    one = {"a": torch.ones(1)}
    assert losses_at(lambda w: 1 / w["a"].sum(), {"a": torch.zeros(1)}, [one], np.eye(2)[:, :1]).tolist() == [1, np.inf]


def test_levels_are_common_and_ascending_and_leave_out_the_peaks():
    first, second = np.geomspace(0.01, 1, 50), np.array([*np.geomspace(0.1, 2, 40), 1e9, np.inf, np.nan, 0.0])
    levels = common_levels([first, second], count=7)
    assert levels[0] == pytest.approx(0.01)
    assert 0.5 < levels[-1] < 2
    np.testing.assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])
    assert (np.diff(common_levels([np.full((3, 3), 2.3)])) > 0).all()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), norm(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
    )


def test_each_filter_of_a_direction_has_the_norm_of_the_networks_filter_and_each_seed_its_own_direction():
    weights = dict(network(nn.BatchNorm2d).named_parameters())
    direction, again, other = (random_direction(weights, generator(seed)) for seed in (0, 0, 1))
    for name in ("0.weight", "5.weight"):
        ours, theirs = (values[name].flatten(1).norm(dim=1) for values in (direction, weights))
        torch.testing.assert_close(ours, theirs)
    assert not any(direction[name].any() for name in ("0.bias", "1.weight", "1.bias", "5.bias"))
    assert torch.equal(direction["0.weight"], again["0.weight"])
    assert not torch.allclose(direction["0.weight"], other["0.weight"])


@pytest.mark.parametrize(("norm", "factors"), [(nn.BatchNorm2d, [0.1, 0.5, 1.0, 3.0, 20.0]), (nn.Identity, [8.0] * 5)])
def test_a_surface_is_invariant_to_scaling_filters_and_leaves_the_network_unchanged(norm, factors):
    plain, scaled = network(norm), network(norm)
    plain[1].eps = scaled[1].eps = 1e-12  # otherwise eps would have to scale with the filters
    with torch.no_grad():
        scaled[0].weight *= torch.tensor(factors)[:, None, None, None]
        scaled[0].bias *= torch.tensor(factors)
        if norm is nn.Identity:  # ReLU preserves a positive scale
            scaled[5].weight /= 8
    batch = torch.randn(6, 3, 8, 8, generator=generator(1)), torch.arange(6) % 4
    profiles = []
    for model in (plain, scaled):
        loss = NetworkLoss(model, nn.CrossEntropyLoss(), *batch)
        direction = random_direction(loss.weights(), generator())
        profiles.append(losses_at(loss, loss.weights(), [direction], np.linspace(-1, 1, 9)[:, None]))
    np.testing.assert_allclose(*profiles, rtol=1e-4)


def test_a_trajectory_lies_in_the_plane_of_its_directions_of_most_variance():
    drawn = torch.linalg.qr(torch.randn(7, 2, generator=generator(), dtype=torch.float64)).Q
    places = torch.tensor([[4.0, 1.0], [3.0, -2.0], [1.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    snapshots = [{"a": flat[:3], "b": flat[3:].view(2, 2)} for flat in places @ drawn.T + 5]
    plane = trajectory_plane(snapshots)
    assert plane.explained.sum() == pytest.approx(1)
    assert plane.explained[0] > plane.explained[1]
    axes = torch.stack([torch.cat([d["a"], d["b"].flatten()]) for d in plane.directions])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))
    back = torch.from_numpy(plane.coordinates) @ axes
    torch.testing.assert_close(back, places @ drawn.T)
    assert plane.coordinates[-1] == pytest.approx([0, 0])
    snapshots = [{"w": torch.tensor([x, y, 1.0])} for x, y in ((0.0, 0.1), (1.0, -0.1), (2.0, -0.1), (3.0, 0.1))]
    plane = trajectory_plane(snapshots)
    assert plane.explained == pytest.approx([5 / 5.04, 0.04 / 5.04])
    assert plane.directions[0]["w"].abs() == pytest.approx(torch.tensor([1.0, 0.0, 0.0]), abs=1e-6)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_snapshots_on_a_line_span_no_plane(count):
    snapshots = [{"w": number * torch.ones(4)} for number in range(count)]
    with pytest.raises(ValueError, match=rf"^{count} "):
        trajectory_plane(snapshots)
