import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.landscape.maths.directions import random_direction, trajectory_plane
from cifar_lab.landscape.maths.functional import NetworkLoss
from cifar_lab.landscape.maths.surfaces import losses_at


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    return torch.randn(6, 3, 8, 8, generator=generator(1)), torch.arange(6) % 4


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), norm(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
    )


def profile(model, batch):
    loss = NetworkLoss(model, nn.CrossEntropyLoss(), *batch)
    direction = random_direction(loss.weights(), generator())
    return losses_at(loss, loss.weights(), [direction], np.linspace(-1, 1, 9)[:, None])


def test_each_filter_of_a_direction_has_the_norm_of_the_weights_filter():
    weights = dict(network(nn.BatchNorm2d).named_parameters())
    direction = random_direction(weights, generator())
    for name in ("0.weight", "5.weight"):
        ours, theirs = (values[name].flatten(1).norm(dim=1) for values in (direction, weights))
        torch.testing.assert_close(ours, theirs)
    assert not any(direction[name].any() for name in ("0.bias", "1.weight", "1.bias", "5.bias"))


def test_a_seed_draws_its_own_direction():
    weights = dict(network(nn.BatchNorm2d).named_parameters())
    first, again, other = (random_direction(weights, generator(seed))["0.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_surface_does_not_change_where_filters_before_batch_norm_are_scaled(batch):
    plain, scaled = network(nn.BatchNorm2d), network(nn.BatchNorm2d)
    plain[1].eps = scaled[1].eps = 1e-12  # what scales with the filters otherwise
    factors = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0])
    with torch.no_grad():
        scaled[0].weight *= factors[:, None, None, None]
        scaled[0].bias *= factors
    np.testing.assert_allclose(profile(scaled, batch), profile(plain, batch), rtol=1e-4)


def test_a_surface_does_not_change_where_relu_passes_a_scale_on(batch):
    plain, scaled = network(nn.Identity), network(nn.Identity)
    with torch.no_grad():
        scaled[0].weight *= 8
        scaled[0].bias *= 8
        scaled[5].weight /= 8
    np.testing.assert_allclose(profile(scaled, batch), profile(plain, batch), rtol=1e-5)


def test_a_trajectory_in_a_plane_is_explained_by_it_wholly_and_lies_where_it_was():
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


def test_the_first_direction_is_the_one_of_most_variance():
    snapshots = [{"w": torch.tensor([x, y, 1.0])} for x, y in ((0.0, 0.1), (1.0, -0.1), (2.0, -0.1), (3.0, 0.1))]
    plane = trajectory_plane(snapshots)
    assert plane.explained == pytest.approx([5 / 5.04, 0.04 / 5.04])
    assert plane.directions[0]["w"].abs() == pytest.approx(torch.tensor([1.0, 0.0, 0.0]), abs=1e-6)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_snapshots_on_a_line_span_no_plane(count):
    snapshots = [{"w": number * torch.ones(4)} for number in range(count)]
    with pytest.raises(ValueError, match=rf"^{count} "):
        trajectory_plane(snapshots)
