import numpy as np
import pytest

from cifar_lab.landscape.maths.smoothness import PAPER_MULTIPLES, has_grid, smoothness
from tests.landscape_runs import quadratic_probes

MATRIX = np.diag([1.0, 3.0, 8.0])
GRADIENTS = np.array([[1.0, 2.0, 0.5], [0.3, 0.0, 1.0]])
FINE = (1e-3, 1e-2, 0.5, 1.0, 2.0, 4.0)


def of_quadratic(multiples=PAPER_MULTIPLES, lr=0.01):
    return quadratic_probes(MATRIX, GRADIENTS, lr=lr, multiples=multiples)


@pytest.mark.parametrize("multiples", [PAPER_MULTIPLES, FINE])
def test_quantities_of_a_quadratic_follow_its_taylor_series(multiples):
    found = smoothness(of_quadratic(multiples))
    bent, square = np.linalg.norm(GRADIENTS @ MATRIX, axis=1), (GRADIENTS**2).sum(axis=1)
    np.testing.assert_allclose(found["beta"], bent / square**0.5)  # for any grid
    np.testing.assert_allclose(found["hessian_norm"], bent / square**0.5)
    np.testing.assert_allclose(found["gradient_range"], 0.01 * (multiples[-1] - multiples[0]) * bent)
    curved = np.einsum("pi,ij,pj->p", GRADIENTS, MATRIX, GRADIENTS)
    np.testing.assert_allclose(found["sharpness"], curved / square)
    etas = np.array(multiples) * 0.01
    losses = -etas * square[:, None] + etas**2 * curved[:, None] / 2
    np.testing.assert_allclose(found["loss_range"], np.ptp(losses, axis=1))
    np.testing.assert_allclose(found["grad_norm"], square**0.5)
    moved = GRADIENTS[:, None] - etas[:, None] * (GRADIENTS @ MATRIX)[:, None]
    np.testing.assert_allclose(found["moved_grad_norm"], np.linalg.norm(moved, axis=2).max(axis=1))
    np.testing.assert_allclose(found["change_at_0.01"], 0.1 / square**0.5 * bent / square**0.5)


def test_a_grid_is_chosen_in_multiples_of_the_learning_rate():
    whole, paper = smoothness(of_quadratic(FINE)), smoothness(of_quadratic(FINE), PAPER_MULTIPLES)
    np.testing.assert_allclose(whole.ceiling, 1 / 1e-5)
    np.testing.assert_allclose(paper.ceiling, 1 / 0.005)
    np.testing.assert_allclose(paper.gradient_range, smoothness(of_quadratic()).gradient_range)
    assert has_grid(of_quadratic(FINE), PAPER_MULTIPLES)
    with pytest.raises(ValueError, match=r"0\.5, 1, 2, 4 x lr; set probe\.etas"):
        smoothness(of_quadratic((0.5, 1.0)), PAPER_MULTIPLES)


@pytest.mark.parametrize("length", [0.01, 0.5, 1.0])
def test_a_gradient_orthogonal_to_the_first_puts_beta_at_the_ceiling_for_any_length(length):
    probes = of_quadratic()
    norms = np.linalg.norm(GRADIENTS, axis=1)[:, None]
    probes["grad_distance"] = np.broadcast_to(norms * np.hypot(1, length), probes["eta"].shape)
    probes["beta"] = probes["grad_distance"] / (probes["eta"] * norms)
    found = smoothness(probes)
    assert found["at_ceiling"].all()
    np.testing.assert_allclose(found["beta"] / found["ceiling"], np.hypot(1, length))
    for lr in (0.01, 10.0):  # a smooth loss, and one whose gradient grows
        assert not smoothness(of_quadratic(lr=lr))["at_ceiling"].any()


def test_the_cosine_is_the_one_at_the_learning_rate():
    probes = of_quadratic(FINE)
    np.testing.assert_array_equal(smoothness(probes).cosine, probes["grad_cosine"][:, 3])
    np.testing.assert_array_equal(smoothness(probes, (0.5, 2.0)).cosine, probes["grad_cosine"][:, 3])
    assert np.isnan(smoothness(of_quadratic((0.5, 2.0))).cosine).all()


def test_a_step_to_a_nan_loss_counts_as_infinitely_far():
    probes = of_quadratic()
    for name in ("moved_loss", "moved_grad_norm", "grad_distance", "beta"):
        probes[name] = probes[name].copy()
        probes[name][0, -1] = np.nan
    found = smoothness(probes)
    far = found[["loss_range", "gradient_range", "beta", "moved_grad_norm"]]
    assert np.isposinf(far.loc[0]).all()
    assert np.isfinite(far.loc[1]).all()
    assert not found.at_ceiling[0]
    probes["loss"] = np.array([np.nan, 1.0])  # a network that diverged before
    assert smoothness(probes).index.tolist() == [1]
