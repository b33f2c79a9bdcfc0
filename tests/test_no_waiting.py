"""A training step reads no tensor's value: on a GPU, each such read waits until the device has caught up."""

from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from cifar_lab.runs import Run
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.callbacks import Recorder
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.fitting import fit_and_test
from tests.conftest import TINY, Compose

_READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")


class Reads(TorchDispatchMode):
    """Records every operation whose result the host needs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.steps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Record the reads between a batch's first hook and its last."""
    mode = Reads()
    begin = Classifier.on_train_batch_start

    def enter(self: Classifier, *arguments: Any) -> None:
        mode.__enter__()
        begin(self, *arguments)

    def leave(self: Classifier, *_: object) -> None:  # the module's hook runs after all callbacks'
        mode.__exit__(None, None, None)
        if mode.steps == 0:
            mode.found.clear()  # the first step may read values while it sets things up
        mode.steps += 1

    monkeypatch.setattr(Classifier, "on_train_batch_start", enter)
    monkeypatch.setattr(Classifier, "on_train_batch_end", leave)
    # Checks the loss at each step on a CPU, and only at every fiftieth on a GPU.
    monkeypatch.setattr(Recorder, "_check", lambda *_: None)
    return mode


# Without mse: on a CPU, though not on a GPU, one_hot looks up the largest label.
@pytest.mark.parametrize(
    "arguments",
    [
        ["optimizer=adamw", "l1=1e-4"],
        ["optimizer=sgd", "loss=focal", "averaging=ema"],
        ["optimizer=sign_sgd", "loss=label_smoothing"],
        ["optimizer=signum", "loss=focal", "augment=mixup"],
        ["augment=alternating_flip", "augment.contrast=0.2", "data.skip_easy=0.5"],
        ["optimizer=muon", "averaging=lookahead", "averaging.every_n_steps=2", "averaging.power=3", "scheduler=linear"],
    ],
)
def test_a_step_reads_no_tensor(composed: Compose, tmp_path: Path, reads: Reads, arguments: list[str]) -> None:
    config = composed(*TINY, *arguments, "epochs=1", "trainer.enable_progress_bar=false")
    fit_and_test(config, Attempt(Run(tmp_path)))
    assert reads.steps == 9
    assert reads.found == []
