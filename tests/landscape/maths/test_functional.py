import pytest
import torch
from torch import nn

from cifar_lab.landscape.maths.functional import (
    NetworkLoss,
    along_gradient,
    difference,
    dot,
    hessian_vector_product,
    moved,
    norm,
    value_and_gradient,
    without_tf32,
)
from cifar_lab.models import CNN
from tests.landscape.maths.quadratics import MATRIX, POINT, by_name, quadratic


@pytest.fixture
def network():
    torch.manual_seed(0)
    return CNN(filters=(4, 4, 4), dropout=0.5, batch_norm=True)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)


def test_value_gradient_and_hessian_are_those_of_a_quadratic_and_of_a_linear_loss():
    point = by_name(POINT)
    assert dot(point, point) == pytest.approx(5.25)
    assert norm(point) == pytest.approx(5.25**0.5)
    assert norm(difference(moved(point, point, 2.0), point)) == pytest.approx(2 * 5.25**0.5)
    value, gradient, product = along_gradient(quadratic, point)
    assert value == POINT @ MATRIX @ POINT / 2
    torch.testing.assert_close(gradient, by_name(MATRIX @ POINT))
    torch.testing.assert_close(product, by_name(MATRIX @ MATRIX @ POINT))
    torch.testing.assert_close(hessian_vector_product(quadratic, point, point), by_name(MATRIX @ POINT))
    value, gradient, product = along_gradient(lambda weights: weights["a"].sum(), point)
    assert (value.item(), gradient["a"].tolist(), product["a"].tolist()) == (-1, [1, 1], [0, 0])


def test_a_networks_loss_and_gradient_are_those_of_its_training(network, batch):
    images, labels = batch
    criterion = nn.CrossEntropyLoss()
    loss = NetworkLoss(network, criterion, images, labels, lambda: torch.manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):  # the loss must still be computed in float32
        value, gradient = value_and_gradient(loss, loss.weights())
    torch.manual_seed(3)
    expected = criterion(network(images), labels)
    expected.backward()
    assert torch.equal(value, expected)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(gradient[name], weight.grad)


@pytest.mark.parametrize("seed_draws", [None, lambda: torch.manual_seed(3)])
def test_computing_a_loss_changes_neither_the_network_nor_the_random_state(network, batch, seed_draws):
    loss = NetworkLoss(network, nn.CrossEntropyLoss(), *batch, seed_draws)
    state, random = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    values = [value_and_gradient(loss, loss.weights())[0] for _ in range(2)]
    hessian_vector_product(loss, loss.weights(), loss.weights())
    assert torch.equal(values[0], values[1])
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(weight.grad is None for weight in network.parameters())


def test_frozen_weights_do_not_move(network, batch):
    network.conv_layers[0].weight.requires_grad_(False)
    loss = NetworkLoss(network, nn.CrossEntropyLoss(), *batch)
    assert "conv_layers.0.weight" not in loss.weights()
    assert "conv_layers.0.weight" not in value_and_gradient(loss, loss.weights())[1]


def test_values_along_the_gradient_equal_those_of_single_calls(network, batch):
    loss = NetworkLoss(network, nn.CrossEntropyLoss(), *batch, lambda: torch.manual_seed(3))
    told = along_gradient(loss, loss.weights())
    value, gradient = value_and_gradient(loss, loss.weights())
    torch.testing.assert_close(told, (value, gradient, hessian_vector_product(loss, loss.weights(), gradient)))
    assert not any(part.requires_grad for part in (told[0], *told[1].values(), *told[2].values()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_a_different_type_are_converted_to_float32(network, batch, dtype):
    images, labels = batch
    loss = NetworkLoss(network.to(dtype), nn.CrossEntropyLoss(), images.to(dtype), labels)
    value, gradient = value_and_gradient(loss, loss.weights())
    assert {value.dtype, *(part.dtype for part in gradient.values())} == {torch.float32}
    assert {weight.dtype for weight in network.parameters()} == {dtype}


def test_tf32_is_switched_off_and_back_on():
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    with without_tf32(torch.device("cuda")):
        assert convolutions.fp32_precision == "ieee"
    assert convolutions.fp32_precision == before != "ieee"
