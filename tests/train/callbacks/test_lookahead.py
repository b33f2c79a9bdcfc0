"""Slow weights compared with their formula, step by step."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run
from cifar_lab.train.callbacks import Lookahead, Saving
from cifar_lab.train.classifier import Classifier
from tests.train import fits

State = dict[str, Tensor]
# The batch counter of BatchNorm and a frozen bias do not move.
COUNT, FROZEN = "1.num_batches_tracked", "0.bias"


class Keep(L.Callback):
    """Records the state at each step and at each validation."""

    def __init__(self) -> None:
        self.steps: list[State] = []
        self.validated: list[State] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        self.steps.append(_state(pl_module))

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        self.validated.append(_state(pl_module))


def _state(module: Classifier) -> State:
    return {name: value.detach().clone() for name, value in module.model.state_dict().items()}


def fit(lookahead: Lookahead, folder: Path) -> tuple[State, Keep, Keep, Classifier, State]:
    """Train two epochs of four steps; return the initial state, those before and after the callback, and the end."""
    classifier = Classifier(
        fits.network(nn.BatchNorm2d(4)), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    classifier.model.get_parameter(FROZEN).requires_grad_(False)
    start, before, after, run = _state(classifier), Keep(), Keep(), Run(folder)
    fits.fit(classifier, before, lookahead, after, Saving(run, Interruption()), max_epochs=2)
    return start, before, after, classifier, torch.load(run.last_checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        # Per step, from 1 to 8: the share by which the slow weights move, if they do.
        ({"alpha": 0.25, "every_n_steps": 2}, {2: 0.25, 4: 0.25, 6: 0.25, 8: 0.25}),
        ({"alpha": 0.75, "every_n_steps": 3}, {3: 0.75, 6: 0.75}),
        ({"alpha": 0.2, "every_n_steps": 4, "power": 3.0}, {4: 1 - 0.8 / 8, 8: 0.2}),
        ({"alpha": 0.2, "every_n_steps": 2, "power": 1.0, "start": 0.5}, {4: 1.0, 6: 1 - 0.8 * 0.75, 8: 0.2}),
    ],
)
def test_slow_weights_move_by_their_share_and_fast_weights_return_to_them(
    options: dict[str, Any], shares: dict[int, float], tmp_path: Path
) -> None:
    start, before, after, classifier, saved = fit(Lookahead(**options), tmp_path)
    slow, validations = start, []
    for step, (fast, then) in enumerate(zip(before.steps, after.steps, strict=True), 1):
        if step in shares:
            slow = {
                name: value if name == COUNT else slow[name] + shares[step] * (value - slow[name])
                for name, value in fast.items()
            }
        for name, value in then.items():
            expected = (slow if step in shares else fast)[name]
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
        if step in (4, 8):
            validations.append(slow)
    assert len(before.steps) == 8
    end = _state(classifier)
    for name, value in end.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-4, atol=1e-6)
        assert torch.equal(saved[f"model.{name}"], value)
        for validated, expected in zip(before.validated, validations, strict=True):
            torch.testing.assert_close(validated[name], expected[name], rtol=1e-4, atol=1e-6)
    assert torch.equal(end[FROZEN], start[FROZEN])
    assert not torch.equal(end["0.weight"], start["0.weight"])


def test_trained_weights_are_validated_and_returned_until_slow_weights_start(tmp_path: Path) -> None:
    _, before, after, classifier, saved = fit(Lookahead(every_n_steps=9), tmp_path / "never")
    # The slow weights start as the initial ones, and are never updated.
    assert torch.equal(_state(classifier)["0.weight"], before.validated[0]["0.weight"])
    _, before, after, classifier, saved = fit(Lookahead(every_n_steps=5, start=0.9), tmp_path / "late")
    for name, value in _state(classifier).items():
        assert torch.equal(value, before.steps[-1][name]) and torch.equal(value, saved[f"model.{name}"])
    assert torch.equal(before.validated[0]["0.weight"], after.steps[3]["0.weight"])


def test_a_parameter_frozen_during_training_stays_unchanged(tmp_path: Path) -> None:
    class Freeze(Keep):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                pl_module.model[0].weight.requires_grad_(False)

    classifier = Classifier(fits.network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1))
    freeze = Freeze()
    fits.fit(classifier, freeze, Lookahead(every_n_steps=3), max_epochs=2, enable_checkpointing=False)
    assert torch.equal(classifier.model[0].weight, freeze.steps[3]["0.weight"])
    assert not torch.equal(freeze.steps[3]["0.weight"], freeze.steps[2]["0.weight"])


@pytest.mark.parametrize("alpha", [0.0, 1.5, -1.0])
def test_a_share_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"averaging\.alpha={alpha}"):
        Lookahead(alpha)
