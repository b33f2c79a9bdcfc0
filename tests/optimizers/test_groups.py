"""Learning rates and weight decay by kind of parameter."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from cifar_lab.config import build_optimizer, resolved
from cifar_lab.optimizers import Grouped, Muon, make_optimizer, make_scheduler
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.runs.run import Run
from tests.conftest import TINY, Compose, Train


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False), nn.Linear(4, 4), nn.Linear(4, 2)
    )


def settings(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Return each parameter's learning rate and weight decay, by name."""
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    named = {name: groups[id(weight)] for name, weight in model.named_parameters()}
    return {name: (group["lr"], group["weight_decay"]) for name, group in named.items()}


RATES = {"norms": 8.0, "biases": 2.0, "head": 4.0}
# conv bias, norm weight and bias, conv without a bias, inner layer's bias, head
EXPECTED = {
    "0.weight": (0.5, 0.125),
    "0.bias": (1.0, 0.125),
    "1.weight": (4.0, 0.125),
    "1.bias": (4.0, 0.125),
    "2.weight": (0.5, 0.125),
    "3.weight": (0.5, 0.125),
    "3.bias": (1.0, 0.125),
    "4.weight": (2.0, 0.125),
    "4.bias": (2.0, 0.125),
}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("by_rate", [False, True])
@pytest.mark.parametrize("decay_norms", [False, True])
def test_each_kind_has_its_rate_and_its_weight_decay(kind: Any, by_rate: bool, decay_norms: bool) -> None:
    model = network()
    make = Grouped(partial(kind, lr=0.5, weight_decay=0.125), RATES, decay_norms, by_rate)
    for name, (rate, decay) in settings(make(model), model).items():
        lr, whole = EXPECTED[name]
        is_left_out = not decay_norms and (name == "1.weight" or name.endswith("bias"))
        assert rate == lr
        assert (decay * rate if by_rate else decay) == (0 if is_left_out else whole)


def test_plain_weights_are_the_first_group_and_a_schedule_keeps_the_ratios() -> None:
    model = network()
    optimizer = Grouped(partial(torch.optim.SGD, lr=0.5), RATES)(model)
    assert optimizer.param_groups[0]["params"] == [model[0].weight, model[2].weight, model[3].weight]
    torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=3.0, total_steps=10, cycle_momentum=False)
    scheduler = make_scheduler(one_cycle, optimizer)
    assert [group["max_lr"] for group in optimizer.param_groups] == [3.0, 6.0, 24.0, 12.0]
    for _ in range(5):
        scheduler.step()
        first, *others = [group["lr"] for group in optimizer.param_groups]
        assert [other / first for other in others] == pytest.approx([2, 8, 4])


def test_the_rate_of_muons_other_weights_is_relative_to_its_own_rate() -> None:
    model = network()
    make = partial(Muon, lr=0.5, sgd_lr=0.25, weight_decay=0.125)
    optimizer, implementation = make_optimizer(Grouped(make, {"norms": 8.0}, False, True), model)
    found = settings(optimizer, model)
    assert implementation == "foreach"
    assert found["0.weight"] == found["2.weight"] == (0.5, 0)
    assert found["1.weight"] == found["1.bias"] == (2.0, 0)
    assert found["4.weight"] == (0.25, 0.5)
    assert found["4.bias"] == (0.25, 0)


def test_by_default_all_trained_weights_are_one_group_in_the_networks_order(composed: Compose) -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    for option in ("adam", "adamw", "sgd", "sign_sgd", "signum"):
        (group,) = build_optimizer(composed(f"optimizer={option}").optimizer)(model).param_groups
        assert all(map(torch.Tensor.is_set_to, group["params"], list(model.parameters())[1:]))
        assert not {"relative_lr", "decays"} & group.keys()


def test_defaults_are_left_out_of_the_fingerprint(composed: Compose) -> None:
    config = resolved(composed())
    old = {**config, "optimizer": {k: v for k, v in config["optimizer"].items() if not k.startswith(("dec", "rel"))}}
    assert len(old["optimizer"]) == len(config["optimizer"]) - 3
    assert fingerprint(old) == fingerprint(config)
    assert fingerprint(resolved(composed("optimizer.relative_lr.head=2"))) != fingerprint(config)


@pytest.mark.parametrize("wrong", [{"norm": 1.0}, {"head": -1.0}])
def test_unknown_kinds_and_negative_rates_are_refused(wrong: dict[str, float], composed: Compose) -> None:
    config = composed()
    config.optimizer.relative_lr = wrong
    with pytest.raises(ValueError, match=rf"optimizer\.relative_lr\.{next(iter(wrong))}"):
        build_optimizer(config.optimizer)


def test_exclusions_from_weight_decay_need_an_optimizer_that_has_it() -> None:
    with pytest.raises(ValueError, match=r"Rprop.*weight_decay"):
        Grouped(torch.optim.Rprop, decay_norms=False)(network())


def test_a_run_trains_with_its_groups_and_keeps_them(trained: Train) -> None:
    words = ("optimizer=sgd", "optimizer.relative_lr.norms=4", "optimizer.decay_norms=false")
    run: Run = trained(*TINY, "logger=none", "epochs=1", "scheduler=constant", *words)
    saved = torch.load(run.last_checkpoint, weights_only=True)["optimizer_states"][0]
    assert [(group["lr"], group["weight_decay"]) for group in saved["param_groups"]] == [
        (0.05, 5e-4),
        (0.05, 0.0),
        (0.2, 0.0),
    ]
    assert run.steps()["lr"][0] == pytest.approx(0.05)
