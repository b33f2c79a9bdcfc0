import copy

import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.landscape.maths.functional import NetworkLoss
from cifar_lab.landscape.maths.probing import MOVED_QUANTITIES, POINT_QUANTITIES, RELATIVE, probe
from cifar_lab.models import CNN
from tests.landscape.maths.quadratics import MATRIX, POINT, by_name, quadratic


def test_every_quantity_of_a_quadratic_follows_its_formula_at_the_moved_point():
    gradient, etas, shares = MATRIX @ POINT, [1e-3, 0.1, 0.5, 2.0], [1e-3, 0.1]
    told = probe(quadratic, by_name(POINT), etas, shares)
    assert told["eta"].tolist() == etas
    np.testing.assert_allclose(told["relative_eta"] * told["grad_norm"] / told["weight_norm"], shares)
    assert probe(quadratic, by_name(POINT), [])["beta"].shape == (0,)
    hessian_norm = float((MATRIX @ gradient).norm() / gradient.norm())
    sharpness = float(gradient @ MATRIX @ gradient / gradient.norm() ** 2)
    expected = (POINT @ MATRIX @ POINT / 2, gradient.norm(), POINT.norm(), hessian_norm, sharpness)
    assert [told[name] for name in POINT_QUANTITIES] == pytest.approx([float(value) for value in expected], rel=1e-12)
    for prefix in ("", RELATIVE):
        for number, eta in enumerate(told[f"{prefix}eta"]):
            point = POINT - eta * gradient
            other = MATRIX @ point
            expected = {
                "moved_loss": point @ MATRIX @ point / 2,
                "moved_grad_norm": other.norm(),
                "grad_distance": (other - gradient).norm(),
                "grad_cosine": gradient @ other / gradient.norm() / other.norm(),
                "beta": hessian_norm,
                "curvature": sharpness,
            }
            for name, value in expected.items():
                assert told[f"{prefix}{name}"][number] == pytest.approx(float(value), rel=1e-8), name
    assert set(told) == {*POINT_QUANTITIES, *MOVED_QUANTITIES, *(f"{RELATIVE}{name}" for name in MOVED_QUANTITIES)}
    assert all(values.dtype == np.float64 for values in told.values())


def test_values_that_are_not_finite_are_recorded_and_quotients_by_a_zero_gradient_are_nan():
    told = probe(lambda weights: weights["a"].square().sum() ** 2, {"a": torch.tensor([1e3])}, [1e-9, 1e30])
    assert np.isfinite(told["moved_loss"][0]) and np.isinf(told["moved_loss"][1])
    assert np.isnan(told["grad_cosine"][1])
    assert np.isfinite(told["loss"])
    told = probe(lambda weights: weights["a"].square().sum(), {"a": torch.zeros(2)}, [0.1], [0.1])
    assert told["grad_norm"] == 0
    for name in ("hessian_norm", "sharpness", "beta", "relative_beta", "grad_cosine"):
        assert np.isnan(told[name]).all(), name


@pytest.mark.parametrize("spatial_dropout", [False, True])
def test_the_hessian_product_is_the_same_in_a_different_layout_with_dropout(spatial_dropout):
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Dropout(0.5) if spatial_dropout else nn.Identity()]
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(144, 10)).to(memory_format=torch.channels_last)
    images, labels, mask = torch.randn(16, 3, 8, 8), torch.randint(10, (16,)), lambda: torch.manual_seed(5)
    loss, twin = (
        NetworkLoss(network, nn.CrossEntropyLoss(), images.to(memory_format=layout), labels, mask)
        for layout in (torch.channels_last, torch.contiguous_format)
    )
    alone, beside = probe(loss, loss.weights(), [0.1]), probe(loss, loss.weights(), [0.1], twin=twin)
    for name, values in alone.items():
        np.testing.assert_allclose(beside[name], values, rtol=1e-3, err_msg=name)
    other = probe(twin, {name: value.contiguous() for name, value in loss.weights().items()}, [])["hessian_norm"]
    assert (abs(other / alone["hessian_norm"] - 1) < 1e-3) != spatial_dropout  # otherwise the mask would not matter


def naive(network, criterion, images, labels, eta):
    """Return the loss after a step and the gradients before and after it, from a copy that is moved in place."""
    torch.manual_seed(5)
    here = copy.deepcopy(network)
    criterion(here(images), labels).backward()
    gradient = torch.cat([weight.grad.flatten() for weight in here.parameters()])
    there = copy.deepcopy(network)
    with torch.no_grad():
        for weight, start in zip(there.parameters(), here.parameters(), strict=True):
            weight.copy_(weight - eta * start.grad)
    torch.manual_seed(5)
    value = criterion(there(images), labels)
    value.backward()
    return float(value.detach()), gradient, torch.cat([weight.grad.flatten() for weight in there.parameters()])


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_networks_probe_equals_that_of_a_moved_copy(batch_norm):
    torch.manual_seed(0)
    network, criterion = CNN(filters=(4, 4, 4), dropout=0.5, batch_norm=batch_norm), nn.CrossEntropyLoss()
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    loss = NetworkLoss(network, criterion, images, labels, lambda: torch.manual_seed(5))
    etas = [0.01, 0.3, 2.0]
    told = probe(loss, loss.weights(), etas)
    for number, eta in enumerate(etas):
        value, gradient, other = naive(network, criterion, images, labels, eta)
        distance = float((other - gradient).norm())
        expected = {
            "moved_loss": value,
            "moved_grad_norm": float(other.norm()),
            "grad_distance": distance,
            "grad_cosine": float(torch.cosine_similarity(gradient, other, dim=0)),
            "beta": distance / (eta * float(gradient.norm())),
        }
        assert {name: told[name][number] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert told["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-5)
