"""Time and operations to an accuracy."""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import chdir
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from cifar_lab import benchmark
from cifar_lab.benchmark import to_accuracy as module
from cifar_lab.benchmark.loops import SlowWeights
from cifar_lab.train.callbacks import Lookahead
from cifar_lab.train.cost import Speed
from tests.conftest import CHECKOUT, refusal

Call = Callable[..., tuple[int, str, str]]

TINY = [
    *("data=synthetic", "data.num_train=100", "data.num_test=40", "model.filters=[2,2,2]", "batch_size=20", "epochs=2"),
    *("trainer=cpu", "trainer.precision=32-true", "logger=none", "scheduler=linear", "averaging=lookahead"),
    *("averaging.every_n_steps=3", "averaging.power=3", "data.skip_easy=0.5"),
]


@pytest.fixture
def archive() -> Any:
    """A kept run of best_cnn that reaches 80 % in its second epoch."""
    curve = pd.DataFrame({"epoch": [1, 2], "val/acc": [0.5, 0.8]})
    run = SimpleNamespace(
        options={"experiment": "best_cnn"},
        protocol="report",
        settings={"epochs": 100.0},
        result={"train_size": 50_000},
        metrics=curve,
    )
    return SimpleNamespace(read=lambda: [run])


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda config: Speed(training=100.0, evaluation=1000.0))


def test_best_cnn_takes_the_epochs_of_its_kept_curve_at_this_machines_speed(archive: Any) -> None:
    row = module.reference(80, archive)
    assert (row["epochs"], row["seconds"], row["evaluation_seconds"]) == (2, 1000, 20)
    assert row["pflop"] == pytest.approx(3 * module.flops_per_image(["experiment=best_cnn"]) * 100_000 / 1e15)
    unreached = module.reference(81, archive)
    assert unreached["epochs"] is None
    assert "not reached in its kept curve" in module._reference_cells(unreached, 81).values()


def test_the_cheapest_recipe_that_reaches_an_accuracy_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    published = {"fast_91": None, "fast_94": 0.941, "best_cnn": 0.99}
    monkeypatch.setattr(module, "options", lambda group: [SimpleNamespace(name=name) for name in published])
    monkeypatch.setattr(module, "composed", lambda words: {"published": published[words[0].partition("=")[2]]})
    assert module.recipe_for(91.53) == "experiment=fast_91"
    assert module.recipe_for(94.05) == "experiment=fast_94"
    with pytest.raises(ValueError, match=r"--to 95: .*fast_94 94.1 %"):
        module.recipe_for(95)


def test_slow_weights_by_hand_equal_lookahead() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    slow = SlowWeights(model, Lookahead(alpha=0.5, every_n_steps=2), steps=4)
    slow.begin()
    for target in (2.0, 3.0, 5.0):
        nn.init.constant_(model.weight, target)
        slow.update()
    assert model.weight.item() == 5  # halfway from 1 to 3 at the second step
    slow.finish()
    assert model.weight.item() == 2


def test_an_accuracy_without_a_recipe_is_refused(called: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(called(benchmark.main, "--to", "99.8"), "--to 99.8")
    refusal(called(benchmark.main, "--to", "90", "--recipe", "experiment=best_cnn", "epochs=0"), "epochs")
    assert list(tmp_path.iterdir()) == []


def test_both_loops_train_the_recipe_to_the_same_accuracy(
    called: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.6)  # makes turns of three steps
    get_context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: get_context("forkserver"))
    multiprocessing.set_forkserver_preload(["tests.preloaded"])
    with chdir(CHECKOUT):  # where the server finds `tests`
        forkserver.ensure_running()
    monkeypatch.chdir(tmp_path)
    code, out, err = called(benchmark.main, "--to", "1", "--recipe", " ".join(TINY), "--output", tmp_path)
    assert code == 0, err
    results = json.loads((tmp_path / "to_accuracy.json").read_text(encoding="utf-8"))
    ours, plain = results["loops"]
    assert (ours["steps"], ours["images"]) == (10, 200)
    torch.testing.assert_close(ours["losses"], plain["losses"], rtol=1e-4, atol=1e-5)
    assert ours["acc"] == pytest.approx(plain["acc"])
    assert results["share_of_framework"] == pytest.approx(1 - plain["seconds"] / ours["seconds"])
    assert ours["pflop"] == pytest.approx(3 * module.flops_per_image(TINY) * 200 / 1e15)
    assert "no curve kept" in out
    assert "about" in err
