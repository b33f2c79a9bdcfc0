"""Whole runs on a GPU; `tests/conftest.py` skips them if there is none."""

import gc
from typing import Any

import pytest
import torch

from cifar_lab.runs import Run
from cifar_lab.train.callbacks import Recorder
from cifar_lab.train.classifier import Classifier
from tests.conftest import TINY, Lab

pytestmark = pytest.mark.gpu


def runs(lab: Lab, *commands: tuple[str, ...]) -> list[Run]:
    """Train in the folders 0, 1, 2 and so on."""
    for folder, command in enumerate(commands):
        outcome = lab(*TINY, "trainer=gpu", *command, f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.stderr
    return outcome.runs


def test_a_run_on_a_gpu_is_recorded_as_one_and_repeats_bitwise(lab: Lab) -> None:
    first, second = runs(lab, (), ())
    assert first.result()["hardware"]["device"] == "cuda"
    assert first.result()["hardware"]["device_name"] == torch.cuda.get_device_name()
    assert first.steps()["loss"].tolist() == second.steps()["loss"].tolist()


def test_a_job_leaves_nothing_in_gpu_memory(lab: Lab) -> None:
    left = []
    for seeds in ("0", "1,2"):  # after the first sweep, cuBLAS and cuDNN keep memory
        assert lab("-m", *TINY, "trainer=gpu", f"seed={seeds}", "hydra.sweep.dir=sweep").code == 0
        gc.collect()
        left.append(torch.cuda.memory_allocated())
    assert left[0] == left[1]


@pytest.mark.parametrize("augment", ["flip_crop", "cutout", "randaugment", "mixup", "cutmix"])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["averaging=ema", "l1=1e-4"],
        ["loss=mse", "optimizer=sgd"],
        ["optimizer=muon", "averaging=lookahead"],
        ["compile=true"],
    ],
)
def test_no_step_waits_for_the_gpu(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, augment: str, arguments: list[str]
) -> None:
    """Check from the second epoch's first batch, including its loading, to the last batch, whose end may wait."""
    steps = []
    begin, kept = Classifier.on_train_batch_start, Recorder.on_train_batch_end

    def forbid(self: Classifier, *arguments: Any) -> None:
        last = self.trainer.num_training_batches - 1  # type: ignore[operator]
        forbidden = self.trainer.current_epoch > 0 and arguments[1] < last
        torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
        steps.append(forbidden)
        begin(self, *arguments)

    def allow_at_the_end(self: Recorder, *arguments: Any) -> None:
        if arguments[0].is_last_batch:
            torch.cuda.set_sync_debug_mode("default")
        kept(self, *arguments)

    monkeypatch.setattr(Classifier, "on_train_batch_start", forbid)
    monkeypatch.setattr(Recorder, "on_train_batch_end", allow_at_the_end)
    command = (*TINY, "trainer=gpu", "trainer.enable_progress_bar=false", f"augment={augment}", *arguments)
    try:
        outcome = lab(*command)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert outcome.code == 0, outcome.stderr
    assert sum(steps) == 8


@pytest.mark.parametrize("extra", [[], ["averaging=ema"], ["averaging=swa", "averaging.start=0.5"]])
@pytest.mark.parametrize("cuda_graphs", ["false", "true"])
def test_compiled_training_equals_plain_training_within_rounding(lab: Lab, cuda_graphs: str, extra: list[str]) -> None:
    plain = ("trainer.precision=32-true", "model.dropout=0", *extra)
    compiled = (*plain, "compile=true", f"cuda_graphs={cuda_graphs}")
    eager, first, second = runs(lab, plain, compiled, compiled)
    assert first.result()["compile"] is True
    assert first.result()["cuda_graphs"] is (cuda_graphs == "true")
    assert first.steps()["loss"] == pytest.approx(eager.steps()["loss"], rel=1e-3)
    assert first.steps()["loss"].tolist() == second.steps()["loss"].tolist()


def test_compiled_dropout_follows_the_seed_of_each_batch(lab: Lab) -> None:
    compiled = ("compile=true", "cuda_graphs=true")
    first, second = (run.steps()["loss"].tolist() for run in runs(lab, compiled, compiled))
    assert first == second
