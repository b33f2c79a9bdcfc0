"""The GPU check, with stand-ins if there is no GPU."""

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cifar_lab import benchmark
from cifar_lab.benchmark import gpu_check as module
from cifar_lab.benchmark.gpu_check import Check, Waits, check_gpu
from tests.conftest import refusal

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record the modes of torch's synchronization debugging."""
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", found.append)
    with warnings.catch_warnings():
        yield found


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU here")
def test_without_a_gpu_it_is_refused(called: Call) -> None:
    refusal(called(benchmark.main, "--gpu-check"), "--gpu-check")


def test_waits_between_two_steps_count_once_and_validation_is_ignored(modes: list[str]) -> None:
    waits, show = Waits(), warnings.showwarning
    trainer: Any = SimpleNamespace(num_training_batches=3)
    waits.on_train_start(trainer, None)
    for step in range(9):
        waits.on_train_batch_start(trainer, None, None, step % 3)
        for _ in range({1: 5, 2: 1, 5: 4, 7: 1, 8: 2}.get(step, 0)):  # one in the second epoch, two in the third
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
    waits.on_validation_start(trainer, None)
    waits.on_validation_end(trainer, None)
    waits.on_train_end(trainer, None)
    assert waits.most == 2
    assert modes == ["warn", "default", "warn", "default"]
    assert warnings.showwarning is show


def test_a_run_fails_because_of_waits_or_losses() -> None:
    losses = {"fp32": np.array([2.0, 1.0]), "auto": np.array([2.0, 1.05]), "broken": np.array([2.0, np.nan])}
    assert module._faults(Check([], "fp32", 0.06), losses, "auto", waits=1) == ("5.00%", [])
    assert len(module._faults(Check([], "fp32", 0.03), losses, "auto", waits=2)[1]) == 2
    assert module._faults(Check([], "left out"), losses, "auto", waits=0) == ("-", [])
    assert len(module._faults(Check([], "fp32", 0.03), losses, "broken", waits=0)[1]) == 2


@pytest.mark.filterwarnings("ignore")
def test_the_fast_run_trains_and_repeats_with_a_stand_in(monkeypatch: pytest.MonkeyPatch, modes: list[str]) -> None:
    tiny = ["data.num_train=64", "data.num_test=16", "batch_size=32", "epochs=2", "trainer=cpu", "model.widths=[8,8,8]"]
    keys = {word.partition("=")[0] for word in tiny}
    monkeypatch.setattr(module, "_FAST", [word for word in module._FAST if word.partition("=")[0] not in keys])
    fp32 = Check(["trainer.precision=32-true"])
    checks = {"fp32": fp32, "again": Check(fp32.words, "fp32"), "broken": Check(["cuda_graphs=true"])}
    monkeypatch.setattr(module, "CHECKS", checks)
    first, again, broken = check_gpu(tiny)
    assert (first["result"], again["result"], again["loss difference"]) == ("passes", "passes", "0.00%")
    assert broken["result"].startswith("fails: ")  # is not compiled
    assert set(modes) == {"warn", "default"}
    assert {row["result"] for row in check_gpu(tiny, seconds=-1)} == {"left out: no time"}
