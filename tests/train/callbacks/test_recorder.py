from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run
from cifar_lab.train.callbacks import CheckpointFiles, Recorder, Saving, Throughput, best
from cifar_lab.train.classifier import Classifier
from tests.train import fits
from tests.train.fits import network


def fit(folder: Path, lr: float = 0.1, **options: Any) -> tuple[Run, Classifier]:
    classifier = Classifier(network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=lr))
    run, throughput = Run(folder), Throughput()
    run.start({})
    callbacks = [throughput, Recorder(run, throughput), best(run), Saving(run, Interruption())]
    fits.fit(classifier, *callbacks, plugins=[CheckpointFiles(run)], **{"max_epochs": 3, **options})
    return run, classifier


def test_metrics_have_a_row_per_epoch_and_steps_an_entry_per_step(tmp_path: Path) -> None:
    run, _ = fit(tmp_path)
    metrics, steps = run.metrics(), run.steps()
    assert metrics["epoch"].tolist() == [1, 2, 3]
    assert metrics["step"].tolist() == [4, 8, 12]
    expected = ["train/loss", "train/objective", "train/acc", "val/loss", "val/acc", "train/lr", "seconds"]
    assert metrics.columns.tolist() == ["epoch", "step", *expected, "images_per_second"]
    assert metrics[expected].notna().all(axis=None)
    assert {name: values.shape for name, values in steps.items()} == dict.fromkeys(
        ("loss", "grad_norm", "first_conv_grad_norm", "lr"), (12,)
    )
    # An epoch's mean over its 16 + 16 + 16 + 6 images equals the weighted mean of its steps.
    weights = np.tile([16, 16, 16, 6], 3).reshape(3, 4) / 54
    np.testing.assert_allclose((steps["loss"].reshape(3, 4) * weights).sum(1), metrics["train/loss"], rtol=1e-5)
    assert run.status()["epoch"] == run.status()["epochs"] == 3


def test_epochs_without_validation_have_empty_cells(tmp_path: Path) -> None:
    run, _ = fit(tmp_path, check_val_every_n_epoch=2)
    assert run.metrics()["val/acc"].isna().tolist() == [True, False, True]
    assert run.metrics()["train/acc"].notna().all()


def test_accumulated_batches_are_one_step_with_their_mean_loss(tmp_path: Path) -> None:
    alone, _ = fit(tmp_path / "alone", lr=0.0, max_epochs=1)
    together, _ = fit(tmp_path / "together", lr=0.0, max_epochs=1, accumulate_grad_batches=2)
    pairs = alone.steps()["loss"].reshape(2, 2).mean(1)
    np.testing.assert_allclose(together.steps()["loss"], pairs, rtol=1e-6)
    assert together.metrics()["step"].tolist() == [2]


def test_the_best_checkpoint_is_the_first_of_equally_good_epochs_and_the_last_is_the_last(tmp_path: Path) -> None:
    run, classifier = fit(tmp_path, max_epochs=5)
    best = torch.load(run.best_checkpoint, weights_only=True)
    last = torch.load(run.last_checkpoint, weights_only=True)
    assert (best["epoch"], last["epoch"]) == (run.metrics()["val/acc"].argmax(), 4)
    for name, weight in classifier.state_dict().items():
        assert torch.equal(last["state_dict"][name], weight)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_throughput_excludes_the_first_ten_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("cifar_lab.train.callbacks.throughput.time.perf_counter", lambda: clock.now)
    throughput = Throughput()
    trainer: Any = SimpleNamespace(is_last_batch=False)
    batch = (torch.zeros(8, 3, 32, 32), torch.zeros(8))
    throughput.on_train_epoch_start(trainer, trainer)
    for step in range(30):
        clock.now += 100.0 if step < 10 else 0.5
        throughput.on_train_batch_end(trainer, trainer, None, batch, step)
        if step == 9:
            assert np.isnan(throughput.images_per_second)
        if step == 19:
            clock.now += 50.0
            throughput.on_validation_end(trainer, trainer)
    assert throughput.images_per_second == pytest.approx(16.0)
    assert throughput.epoch_seconds == pytest.approx(1000 + 10 + 50)
