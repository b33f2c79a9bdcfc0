import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

from cifar_lab.landscape.maths.curvature import sharpness, spectrum_ends
from cifar_lab.landscape.maths.functional import NetworkLoss


def symmetric(size, seed=0):
    drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn + drawn.T


def quadratic(matrix):
    def loss(weights):
        point = torch.cat([weights["a"].flatten(), weights["b"]])
        return point @ matrix @ point / 2

    return loss


@pytest.fixture
def point():
    drawn = torch.randn(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"a": drawn[:24].view(4, 6), "b": drawn[24:]}


def test_a_quadratics_eigenvalues_are_those_of_its_matrix(point):
    matrix = symmetric(30)
    told = []
    largest, smallest, products = spectrum_ends(
        quadratic(matrix), point, 4, tolerance=1e-10, on_product=lambda: told.append(1)
    )
    assert products == len(told) >= 20
    expected = torch.linalg.eigvalsh(matrix)
    np.testing.assert_allclose([*largest, smallest], [*expected.flip(0)[:4], expected[0]], rtol=1e-8)


@pytest.mark.parametrize("lowest", [-50.0, -0.01, 0.0])
def test_the_smallest_eigenvalue_is_found_in_few_products_even_near_zero_and_far_below_the_others(lowest):
    values = torch.cat([torch.tensor([lowest]), torch.linspace(1e-6, 1e-3, 290), torch.linspace(1, 20, 9)])
    _, smallest, products = spectrum_ends(
        lambda weights: (values * weights["a"].square()).sum() / 2, {"a": torch.ones(300)}, 3
    )
    assert smallest == pytest.approx(lowest, abs=1e-3 * (20 - lowest))
    assert products < 200


def test_a_networks_eigenvalues_are_those_of_its_whole_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    images, labels = torch.randn(6, 3, 4, 4), torch.arange(6) % 3
    loss = NetworkLoss(model, nn.CrossEntropyLoss(), images, labels)
    weights = loss.weights()
    sizes = [value.numel() for value in weights.values()]

    def flat_loss(flat):
        # Written out because torch.func's second derivatives of batch_norm in train mode are wrong in torch 2.14: they
        # give a Hessian that is not symmetric.
        parts = zip(weights.values(), flat.split(sizes), strict=True)
        kernel, bias, scale, shift, matrix, last = (part.view(value.shape) for value, part in parts)
        outputs = nn.functional.conv2d(images, kernel, bias).transpose(0, 1).flatten(1)
        centred = outputs - outputs.mean(1, keepdim=True)
        normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        hidden = torch.tanh(normal * scale[:, None] + shift[:, None]).view(2, 6, 4).transpose(0, 1).flatten(1)
        return nn.functional.cross_entropy(hidden @ matrix.T + last, labels)

    whole = jacrev(jacrev(flat_loss))(torch.cat([value.flatten() for value in weights.values()])).detach()
    expected = torch.linalg.eigvalsh(whole.double()).flip(0)
    found, smallest, _ = spectrum_ends(loss, weights, 5, tolerance=1e-5)
    np.testing.assert_allclose(found, expected[:5], rtol=1e-4)
    assert smallest == pytest.approx(float(expected[-1]), abs=1e-4 * float(expected[0] - expected[-1])) and smallest < 0


@pytest.mark.parametrize("count", [1, 2])
def test_sharpness_is_the_curvature_along_the_gradients_and_weights_batches_by_them(point, count):
    flat = torch.cat([point["a"].flatten(), point["b"]])
    matrices = [symmetric(30, seed) for seed in range(count)]
    gradients = [matrix @ flat for matrix in matrices]
    above = sum(g @ matrix @ g for g, matrix in zip(gradients, matrices, strict=True))
    expected = above / sum(g @ g for g in gradients)
    assert sharpness(map(quadratic, matrices), point) == pytest.approx(float(expected))


def test_a_zero_gradient_has_no_sharpness_and_a_hessian_that_is_not_finite_no_eigenvalues(point):
    assert np.isnan(sharpness([lambda weights: (weights["a"] * 0).sum()], point))
    found, smallest, _ = spectrum_ends(lambda weights: (weights["a"] / 0).square().sum(), point, 2)
    assert np.isnan([*found, smallest]).all()


@pytest.mark.parametrize("count", [0, 30])
def test_an_impossible_number_of_eigenvalues_is_refused(point, count):
    with pytest.raises(ValueError, match=rf"^{count} .*\b30\b"):
        spectrum_ends(quadratic(symmetric(30)), point, count)
