import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.landscape.maths.interpolation import barrier, interpolated, loss_and_accuracy, with_weights


def test_the_squared_loss_between_two_linear_networks_is_the_parabola_through_them():
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    images, targets = torch.randn(8, 3), torch.randn(8, 2)
    start, end = ({"weight": torch.randn(2, 3)} for _ in range(2))
    first = (images @ start["weight"].T - targets).square().mean()
    last = (images @ end["weight"].T - targets).square().mean()
    apart = (images @ (end["weight"] - start["weight"]).T).square().mean()
    for share in (0.0, 0.3, 1.0):
        logits = with_weights(model, interpolated(start, end, share), [])(images).detach()
        expected = (1 - share) * first + share * last - share * (1 - share) * apart
        torch.testing.assert_close(nn.functional.mse_loss(logits, targets), expected, rtol=1e-5, atol=0)
    assert torch.equal(interpolated(start, end, 1.0)["weight"], end["weight"])


def test_statistics_are_those_of_the_weights_averaged_over_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {name: value.detach() + 1 for name, value in model.named_parameters()}
    batches = [(torch.randn(size, 3, 5, 5), torch.zeros(size)) for size in (6, 6, 2)]
    other = with_weights(model, weights, batches)
    outputs = [nn.functional.conv2d(images, weights["0.weight"]).transpose(0, 1).flatten(1) for images, _ in batches]
    torch.testing.assert_close(other[1].running_mean, torch.stack([out.mean(1) for out in outputs]).mean(0))
    torch.testing.assert_close(other[1].running_var, torch.stack([out.var(1) for out in outputs]).mean(0))
    assert not other.training
    assert torch.equal(other[1].weight, weights["1.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_estimating_statistics_keeps_the_random_state():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    state, weights = torch.get_rng_state(), {name: value.detach() for name, value in model.named_parameters()}
    first, again = (with_weights(model, weights, [(torch.ones(9, 3), None)])[1].running_mean for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_measurement_is_the_mean_over_images_for_any_batch_size():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 1, 1])
    criterion = nn.CrossEntropyLoss()
    found = loss_and_accuracy(nn.Identity(), criterion, zip(logits.split(3), labels.split(3), strict=True))
    assert found == pytest.approx((float(criterion(logits, labels)), 3 / 5))


def test_a_barrier_is_the_height_above_the_line_between_the_ends():
    shares = np.linspace(0, 1, 101)
    straight = 1 + 2 * shares
    assert barrier(shares, straight + 3 * 4 * shares * (1 - shares)) == pytest.approx(3)
    assert barrier(shares, straight - shares * (1 - shares)) == pytest.approx(0)
