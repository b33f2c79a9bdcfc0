"""Probes record the right quantities without affecting the training."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.data.datamodule import SyntheticDataModule
from cifar_lab.landscape.maths.probing import MOVED_QUANTITIES, POINT_QUANTITIES, RELATIVE
from cifar_lab.landscape.probe import GradientProbe
from cifar_lab.machine.interruption import Interruption
from cifar_lab.models import CNN
from cifar_lab.runs import DivergedError, Run
from cifar_lab.train import run
from cifar_lab.train.callbacks import CheckpointFiles, Recorder, Saving, Throughput
from cifar_lab.train.classifier import Classifier
from tests.comparison import differences, equal
from tests.conftest import CHECKOUT, TINY

PROBE = ("probe=gradient", "probe.every=2", "probe.etas=[0.1,1]", "probe.relative=[0.01]", "probe.at=[1]")


ALL_AT_ONCE = (
    *("augment=randaugment", "averaging=ema", "optimizer=sign_sgd", "loss=focal", "l1=1e-4", "grad_clip=0.01"),
    *("trainer.accumulate_grad_batches=2", "trainer.precision=bf16-mixed"),
)
OTHERS = (
    ("averaging=swa", "averaging.start=0.5", "optimizer=sgd", "l1=1e-4", "scheduler=one_cycle"),
    ("model=vgg_a_dropout", "model.stages=[[4],[4]]", "bn=false"),
    ("augment=cutmix", "loss=focal", "optimizer=signum"),
)


@pytest.mark.parametrize(
    "words",
    [
        (*ALL_AT_ONCE, "batch_size=3", "epochs=1"),
        ("trainer.precision=bf16-true", "loss=mse", "epochs=1"),
        *(pytest.param(words, marks=pytest.mark.slow) for words in OTHERS),
    ],
)
def test_training_is_the_same_to_the_bit_with_and_without_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = [*TINY, "trainer.precision=32-true", "logger=none", *words]
    last = {word.partition("=")[0]: word for word in line if "vgg" not in str(words) or "filters" not in word}
    line = list(last.values())
    run([*line, "hydra.run.dir=plain"])
    result = run([*line, *PROBE, "hydra.run.dir=probed"])
    unlike = differences(Run("probed"), Run("plain"))
    assert {what for what in unlike if "probe" not in what.lower()} == {"fingerprint", "options", "overrides"}
    assert result["probes"] == len(Run("probed").probes()["step"]) >= 4


def fit(
    probe: GradientProbe,
    folder: Path | None = None,
    *,
    lr: float = 0.1,
    l1: float = 0.0,
    callbacks: Sequence[L.Callback] = (),
    **options: Any,
) -> None:
    torch.manual_seed(0)
    classifier = Classifier(
        CNN(filters=(4, 4, 4), dropout=0.5),
        nn.CrossEntropyLoss(),
        partial(torch.optim.SGD, lr=lr),
        {"scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5), "interval": "epoch"},
        l1=l1,
        memory_format=torch.channels_last,
    )
    ours: list[Any] = []
    if folder is not None:
        probe.run, probe.throughput = Run(folder), Throughput()
        probe.run.start({})
        ours = [probe.throughput, Recorder(probe.run, probe.throughput), Saving(probe.run, Interruption())]
    trainer = L.Trainer(
        **{"max_epochs": 2, **options},
        accelerator="cpu",
        plugins=[CheckpointFiles(probe.run)] if probe.run else [],
        logger=False,
        callbacks=[*ours, probe, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(ours),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(classifier, SyntheticDataModule(60, 20, batch_size=16))


def test_the_loss_and_the_gradient_are_those_of_the_step_including_dropout(tmp_path: Path) -> None:
    fit(GradientProbe(every=1, etas=[1.0]), tmp_path)
    probes, steps = Run(tmp_path).probes(), Run(tmp_path).steps()
    assert probes["step"].tolist() == list(range(8))
    np.testing.assert_array_equal(probes["loss"].astype(np.float32), steps["loss"])
    np.testing.assert_allclose(probes["grad_norm"], steps["grad_norm"], rtol=1e-6)
    np.testing.assert_array_equal(probes["lr"], steps["lr"])


def test_a_step_of_plain_sgd_reaches_the_point_that_was_probed_at_its_learning_rate(tmp_path: Path) -> None:

    class After(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
            network = copy.deepcopy(pl_module.model).train()
            pl_module.seed_draws(index)
            with torch.no_grad():
                losses.append(float(pl_module.loss(network(batch[0]), batch[1])))

    losses: list[float] = []
    probe = GradientProbe(every=1, etas=[1.0])
    fit(probe, callbacks=[After()])
    np.testing.assert_allclose(probe.arrays()["moved_loss"][:, 0], losses, rtol=1e-5)


def test_probes_are_taken_at_regular_and_named_steps_with_the_documented_shapes(tmp_path: Path) -> None:
    fit(GradientProbe(every=4, etas=[0.5, 2.0, 4.0], relative=[1e-3, 1e-2], at=[1, 100]), tmp_path)
    probes = Run(tmp_path).probes()
    assert probes["step"].tolist() == [0, 1, 4]
    assert probes["step"].dtype == np.int64
    assert probes["lr"].tolist() == [0.1, 0.1, 0.05]
    np.testing.assert_allclose(probes["eta"], np.outer([0.1, 0.1, 0.05], [0.5, 2.0, 4.0]))
    assert {name: values.shape for name, values in probes.items()} == {
        **dict.fromkeys(("step", "lr", "seconds", *POINT_QUANTITIES), (3,)),
        **dict.fromkeys(MOVED_QUANTITIES, (3, 3)),
        **dict.fromkeys([f"{RELATIVE}{name}" for name in MOVED_QUANTITIES], (3, 2)),
        "relative_distance": (2,),
    }
    documented = (CHECKOUT / "docs" / "run_directory.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in documented for name in probes if not name.startswith(RELATIVE))


def test_the_last_of_accumulated_batches_is_probed_without_the_l1_penalty() -> None:
    class Losses(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            losses.append(float(pl_module.step_loss))

    losses: list[float] = []
    probe = GradientProbe(every=1, etas=[1.0])
    fit(probe, l1=0.1, accumulate_grad_batches=2, callbacks=[Losses()])
    assert probe.arrays()["loss"].tolist() == losses[1::2]
    other = GradientProbe()
    assert other.arrays() == {}
    other.load_state_dict(probe.state_dict())  # as resuming a run does
    assert equal(other.state_dict(), probe.state_dict())


def test_a_diverging_run_keeps_its_earlier_probes(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"\bstep 2\b"):
        fit(GradientProbe(every=1, etas=[1.0]), tmp_path, lr=1e30)
    probes = Run(tmp_path).probes()
    assert probes["step"].tolist() == [0, 1]
    assert np.isfinite(probes["loss"]).tolist() == [True, False]
    assert not np.isfinite(probes["moved_loss"]).any()


def test_probes_do_not_count_towards_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cifar_lab.train.callbacks.throughput.time.perf_counter", lambda: now)
    throughput = Throughput()
    trainer: Any = SimpleNamespace(is_last_batch=False)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    batch = (torch.zeros(8, 3, 32, 32), torch.zeros(8))
    throughput.on_train_epoch_start(trainer, module)
    for step in range(30):
        now += 0.5
        if step % 5 == 0:
            now += 100.0
            throughput.leave_out(100.0)
        throughput.on_train_batch_end(trainer, module, None, batch, step)
    assert throughput.images_per_second == throughput.epoch_images_per_second == 16.0
