import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.optimizers import SignSGD, Signum, make_optimizer

Sign = Callable[[Tensor], Tensor]


def plain(values: Tensor) -> Tensor:
    return values


# The report's optimizer averages signs; Signum takes the sign of the average.
@pytest.mark.parametrize(("kind", "inside", "outside"), [(SignSGD, torch.sign, plain), (Signum, plain, torch.sign)])
@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-2), (0.0, 0.0), (0.5, 0.0)])
def test_sign_optimizers_follow_their_formulas(
    kind: type[SignSGD], inside: Sign, outside: Sign, foreach: bool | None, momentum: float, decay: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in [(3, 4), (5,)]]
    gradients = [[torch.randn(weight.shape, generator=generator) for weight in start] for _ in range(7)]
    parameters = [nn.Parameter(weight.clone()) for weight in start]
    optimizer = kind(parameters, lr=0.1, momentum=momentum, weight_decay=decay, foreach=foreach)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for parameter, expected, steps in zip(parameters, start, zip(*gradients, strict=True), strict=True):
        buffer = torch.zeros_like(expected)
        for gradient in steps:
            buffer = momentum * buffer + (1 - momentum) * inside(gradient + decay * expected)
            expected -= 0.1 * outside(buffer)
        torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("kind", [SignSGD, Signum])
def test_sign_sgd_leaves_the_gradient_and_weights_without_one_alone(kind: type[SignSGD]) -> None:
    weight, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([0.5, -0.5, 0.0])
    before = weight.grad.clone()
    kind([weight, unused], weight_decay=0.1).step()
    assert torch.equal(weight.grad, before)
    assert torch.equal(unused, torch.ones(2))


@pytest.mark.parametrize("kind", [SignSGD, Signum])
def test_sign_sgd_continues_from_its_saved_state(kind: type[SignSGD]) -> None:
    def steps(optimizer: SignSGD, weight: nn.Parameter, count: int) -> None:
        for _ in range(count):
            weight.grad = torch.sin(7 * weight.detach())
            optimizer.step()

    weight = nn.Parameter(torch.linspace(-1, 1, 5))
    optimizer = kind([weight])
    steps(optimizer, weight, 3)
    twin = nn.Parameter(weight.detach().clone())
    resumed = kind([twin])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, weight, 3)
    steps(resumed, twin, 3)
    assert torch.equal(weight, twin)


@pytest.mark.parametrize("arguments", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1e-4}])
def test_sign_sgd_refuses_impossible_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SignSGD([nn.Parameter(torch.ones(1))], **arguments)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_torchs_optimizers_are_fused_and_step_like_the_plain_implementation(kind: type[torch.optim.Optimizer]) -> None:
    def trained(factory: partial[torch.optim.Optimizer]) -> tuple[Tensor, str]:
        weight = nn.Parameter(torch.linspace(-1, 1, 20))
        optimizer, implementation = make_optimizer(factory, nn.ParameterList([weight]))
        for _ in range(5):
            weight.grad = torch.cos(3 * weight.detach())
            optimizer.step()
        return weight.detach(), implementation

    fast, implementation = trained(partial(kind, lr=0.01))
    plain, plain_implementation = trained(partial(kind, lr=0.01, fused=False, foreach=False))
    assert (implementation, plain_implementation) == ("fused", "for_loop")
    torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize(
    ("factory", "implementation"),
    [
        (partial(torch.optim.Adam, foreach=True), "foreach"),
        (partial(torch.optim.Adam, fused=True), "fused"),
        (SignSGD, "foreach"),
        (partial(SignSGD, foreach=False), "for_loop"),
        (torch.optim.LBFGS, "for_loop"),  # has no fast implementation
    ],
)
def test_a_users_choice_of_implementation_is_kept(
    factory: Callable[..., torch.optim.Optimizer], implementation: str
) -> None:
    assert make_optimizer(factory, nn.ParameterList([nn.Parameter(torch.ones(1))]))[1] == implementation
