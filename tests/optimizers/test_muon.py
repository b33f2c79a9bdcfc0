"""Muon's steps compared with their formulas."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.optimizers import Grouped, Muon
from cifar_lab.optimizers.muon import orthogonalised


def reference(matrix: Tensor, steps: int) -> Tensor:
    """Apply Newton-Schulz iterations one after the other, as airbench94_muon.py does, in double precision."""
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    x = x.T if len(matrix) > matrix.size(1) else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if len(matrix) > matrix.size(1) else x).to(matrix)


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (16, 16), (1, 9)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_newton_schulz_with_combined_polynomials_equals_the_plain_iterations(
    shape: tuple[int, int], steps: int
) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    result = orthogonalised(matrix, steps)
    torch.testing.assert_close(result, reference(matrix, steps))
    stacked = orthogonalised(torch.stack([matrix, 100 * matrix]), steps)  # each matrix is normalised separately
    torch.testing.assert_close(stacked, torch.stack([result, result]), rtol=1e-4, atol=1e-6)


def test_newton_schulz_keeps_singular_vectors_and_moves_singular_values_to_about_one() -> None:
    left, right = (torch.linalg.qr(torch.randn(size, 6, dtype=torch.float64))[0] for size in (6, 40))
    values = torch.logspace(0, -1.5, 6, dtype=torch.float64)
    result = orthogonalised(left @ values.diag() @ right.T, steps=5)
    moved = left.T @ result @ right
    torch.testing.assert_close(moved, moved.diag().diag(), rtol=0, atol=1e-10)
    assert ((moved.diag() > 0.5) & (moved.diag() < 1.5)).all()
    assert not orthogonalised(torch.zeros(3, 5), steps=3).any()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 3), nn.Flatten(), nn.Linear(8, 4))


def take_steps(optimizer: torch.optim.Optimizer, model: nn.Module, count: int) -> list[list[Tensor]]:
    """Take steps with gradients computed from the weights alone, and return the gradients."""
    gradients = []
    for _ in range(count):
        for weight in model.parameters():
            weight.grad = torch.sin(7 * weight.detach() + 1)
        gradients.append([weight.grad.clone() for weight in model.parameters() if weight.grad is not None])
        optimizer.step()
    return gradients


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("foreach", [None, False])
def test_filters_are_normalised_and_step_along_orthogonal_momentum_and_the_rest_steps_as_in_sgd(
    foreach: bool | None, memory_format: torch.memory_format
) -> None:
    model = network()
    start = copy.deepcopy(model)
    options: dict[str, Any] = {"lr": 0.2, "momentum": 0.6, "ns_steps": 3}
    muon = Muon(
        model.to(memory_format=memory_format).parameters(),
        **options,
        sgd_lr=0.1,
        sgd_momentum=0.8,
        weight_decay=0.01,
        foreach=foreach,
    )
    steps = take_steps(muon, model, 4)
    rest = [weight for weight in start.parameters() if weight.ndim != 4]
    sgd = torch.optim.SGD(rest, lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True)
    buffers = [torch.zeros_like(weight) for weight in start.parameters()]
    for gradients in steps:
        for weight, gradient, buffer in zip(start.parameters(), gradients, buffers, strict=True):
            weight.grad = gradient
            if weight.ndim == 4:
                buffer.mul_(0.6).add_(gradient)
                update = reference((gradient + 0.6 * buffer).flatten(1), 3)
                weight.data *= len(weight) ** 0.5 / weight.data.norm()
                weight.data -= 0.2 * update.view_as(weight)
        sgd.step()
    for weight, expected in zip(model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5)


def test_groups_choose_what_is_orthogonalised_and_have_their_own_rates() -> None:
    model = network()
    first, *others = model.parameters()
    muon = Muon([{"params": [first], "orthogonal": False, "lr": 1.0}, {"params": others}], lr=0.3, sgd_lr=0.7)
    told = [(group["orthogonal"], group["lr"], len(group["params"])) for group in muon.param_groups]
    assert told == [(False, 1.0, 1), (True, 0.3, 1), (False, 0.7, 6)]
    assert [group["weight_decay"] for group in muon.param_groups] == [5e-4, 0, 5e-4]


def test_frozen_parameters_and_those_without_a_gradient_stay_unchanged() -> None:
    model = network()
    frozen, unused = model[0].weight.requires_grad_(False), model[2].weight
    before = copy.deepcopy(model)
    muon = Grouped(Muon)(model)
    assert not any(weight is frozen for group in muon.param_groups for weight in group["params"])
    model[4].weight.grad = torch.ones_like(model[4].weight)
    muon.step()
    assert torch.equal(frozen, before[0].weight) and torch.equal(unused, before[2].weight)
    assert not torch.equal(model[4].weight, before[4].weight)


def test_a_zero_filter_starts_to_move() -> None:
    filters = nn.Parameter(torch.zeros(2, 3, 1, 1))
    filters.grad = torch.randn(2, 3, 1, 1)
    Muon([filters]).step()
    assert filters.isfinite().all() and filters.any()


def test_muon_continues_from_its_saved_state_to_the_same_bits() -> None:
    model = network()
    muon = Muon(model.parameters())
    take_steps(muon, model, 3)
    twin = copy.deepcopy(model)
    resumed = Muon(twin.parameters())
    resumed.load_state_dict(copy.deepcopy(muon.state_dict()))
    take_steps(muon, model, 3)
    take_steps(resumed, twin, 3)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_closure_has_gradients_and_its_loss_is_returned() -> None:
    model = network()
    muon = Muon(model.parameters(), lr=1e-3, sgd_lr=1e-3)

    def closure() -> Tensor:
        muon.zero_grad()
        value: Tensor = model(torch.ones(2, 3, 6, 6)).square().mean()
        value.backward()
        return value

    before = muon.step(closure)
    assert before is not None and before.item() > closure().item()


@pytest.mark.parametrize(
    "arguments", [{"lr": -1.0}, {"sgd_lr": -1.0}, {"momentum": 1.0}, {"sgd_momentum": -0.1}, {"ns_steps": 0}]
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Muon([nn.Parameter(torch.ones(1))], **arguments)
