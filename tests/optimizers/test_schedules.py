"""Schedules compared with their formulas, by step and by epoch."""

import copy

import pytest
import torch
from torch import nn

from cifar_lab.config import build_scheduler
from cifar_lab.optimizers import LinearDecay
from tests.conftest import Compose


def optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.5, 8.0)]
    return torch.optim.SGD(groups)


def rates(scheduler: LinearDecay, count: int) -> list[float]:
    """Return the first group's rates at each step and after the last one."""
    found = [scheduler.optimizer.param_groups[0]["lr"]]
    for _ in range(count):
        scheduler.optimizer.step()
        scheduler.step()
        first, second = (group["lr"] for group in scheduler.optimizer.param_groups)
        assert second == pytest.approx(16 * first)
        found.append(first)
    return found


@pytest.mark.parametrize(
    ("words", "epochs", "steps", "expected"),
    [
        ((), 4, 8, [0.5 * (1 - t / 8) for t in range(9)]),
        (("scheduler.final=0.5",), 4, 4, [0.5, 0.4375, 0.375, 0.3125, 0.25]),
        # One epoch of two warm-up steps: a third, two thirds, then a line over six steps.
        (("scheduler.warmup_epochs=1",), 4, 8, [0.5 / 3, 1 / 3, *(0.5 * (1 - t / 6) for t in range(7))]),
        (("scheduler.warmup_epochs=0.5",), 4, 8, [0.25, *(0.5 * (1 - t / 7) for t in range(8))]),
        (("scheduler.lightning.interval=epoch",), 4, 8, [0.5, 0.375, 0.25, 0.125, 0]),
        (("scheduler.lightning.interval=epoch", "scheduler.warmup_epochs=1"), 3, 99, [0.25, 0.5, 0.25, 0]),
    ],
)
def test_linear_decay_follows_its_formula(
    composed: Compose, words: tuple[str, ...], epochs: int, steps: int, expected: list[float]
) -> None:
    config = composed("scheduler=linear", f"epochs={epochs}", *words)
    options = build_scheduler(config.scheduler, total_steps=steps, epochs=epochs)
    assert rates(options["scheduler"](optimizer()), len(expected) - 1) == pytest.approx(expected)


def test_linear_decay_continues_from_its_saved_state() -> None:
    whole = rates(LinearDecay(optimizer(), 10, 3), 10)
    first = LinearDecay(optimizer(), 10, 3)
    rates(first, 4)
    second = LinearDecay(optimizer(), 10, 3)
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert rates(second, 6) == whole[4:]


def test_a_warm_up_that_leaves_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_epochs=4 .*total_steps=4"):
        LinearDecay(optimizer(), 4, 4)
