"""A fractional last epoch trains like the beginning of a whole epoch and ends like one."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from rich.console import Console

from cifar_lab.config import build_scheduler
from cifar_lab.data.datamodule import SyntheticDataModule
from cifar_lab.runs import Run
from cifar_lab.train.assembly import total_steps
from cifar_lab.train.callbacks import LastEpoch, Progress, Throughput, batches_of_run
from tests.conftest import TINY, Compose, Outcome, Train, refusal
from tests.train.callbacks.test_progress import classifier
from tests.train.fits import fit, images

SHORT = (*TINY, "logger=none", "trainer.enable_progress_bar=false")  # nine batches an epoch


@pytest.mark.parametrize(
    ("epochs", "whole", "batches"), [(6.6, 250, 1650), (6.4, 250, 1600), (2, 9, 18), (0.001, 9, 1), (1.5, 9, 14)]
)
def test_the_last_epoch_has_its_share_of_the_batches_rounded_up(epochs: float, whole: int, batches: int) -> None:
    assert batches_of_run(epochs, whole) == batches


def test_the_runs_steps_include_the_incomplete_step_of_each_epoch(composed: Compose) -> None:
    def steps(*words: str) -> int:
        data = SyntheticDataModule(num_train=60, num_test=20, batch_size=6)
        return total_steps(composed(*TINY, *words), data)

    assert steps("epochs=2.5") == 9 + 9 + 5
    assert steps("epochs=2.5", "trainer.accumulate_grad_batches=4") == 3 + 3 + 2
    assert steps("epochs=2", "trainer.accumulate_grad_batches=4") == 3 + 3
    assert steps("epochs=1.5", "trainer.limit_train_batches=4") == 4 + 2


@pytest.mark.parametrize("averaging", ["ema", "swa", "lookahead averaging.power=3"])
def test_half_an_epoch_equals_an_epoch_of_half_the_batches_bitwise(trained: Train, averaging: str) -> None:
    words = (*SHORT, "scheduler=one_cycle", *f"averaging={averaging}".split(), "trainer.accumulate_grad_batches=3")
    words += ("averaging.start=0",) if averaging == "swa" else ()
    half = trained(*words, "epochs=0.5", name="half")
    whole = trained(*words, "epochs=1", "trainer.limit_train_batches=5", name="whole")
    weights = [torch.load(run.last_checkpoint, weights_only=True)["state_dict"] for run in (half, whole)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert half.result()["epochs"] == 0.5 and half.validated() == whole.validated()
    assert all(np.array_equal(values, whole.steps()[name]) for name, values in half.steps().items())


def test_a_run_begins_like_a_longer_one_and_its_last_epoch_is_validated_and_counted(trained: Train) -> None:
    words = (*SHORT, "scheduler=constant", "callbacks=snapshots", "callbacks.snapshots.every_epochs=2")
    run, longer = trained(*words, "epochs=1.4", name="run"), trained(*words, "epochs=2", name="longer")
    losses = run.steps()["loss"]
    assert len(losses) == 9 + 4 and np.array_equal(losses, longer.steps()["loss"][:13])
    metrics = run.metrics()
    assert metrics["epoch"].tolist() == [1, 2] and metrics["step"].tolist() == [9, 13]
    assert metrics["val/acc"].notna().all() and list(run.snapshots()) == [0, 2]
    assert run.result()["epochs"] == run.config()["epochs"] == 1.4
    assert (longer.result()["epochs"], run.status()["epochs"]) == (2, 2)
    assert torch.load(run.last_checkpoint, weights_only=True)["is_cut"] is False


def test_a_schedule_by_step_has_its_lengths_in_the_steps_of_the_run(composed: Compose) -> None:
    cosine = composed("epochs=6.4", "scheduler.lightning.interval=step").scheduler
    assert build_scheduler(cosine, total_steps=1600, epochs=6.4)["scheduler"].keywords["T_max"] == 1600
    by_epoch = composed("epochs=6.4", "scheduler=one_cycle", "scheduler.lightning.interval=epoch").scheduler
    assert build_scheduler(by_epoch, total_steps=1600, epochs=6.4)["scheduler"].keywords["total_steps"] == 7


def test_progress_counts_the_remaining_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.terminal.progress.LINE_SECONDS", 0.0)
    console, throughput = Console(file=(output := io.StringIO()), width=200), Throughput()
    progress = Progress(throughput, console, epochs=1.5)
    fit(classifier(), throughput, LastEpoch(1.5), progress, data=images(100, 8), max_epochs=2)
    lines = [line for line in output.getvalue().splitlines() if "validation" not in line]
    assert "1/2 step 12/12" in lines[11] and "2/2 step 6/6" in lines[-2]
    assert lines[-1].startswith("epoch 2/2  loss") and "left" not in lines[-1]  # no time is left


def test_more_epochs_after_a_fractional_one_are_refused(lab: Callable[..., Outcome], trained: Train) -> None:
    run = trained(*SHORT, "scheduler=constant", "epochs=1.5")
    refusal(lab(f"resume={run.folder}", "epochs=3"), "epochs=3", "1.5")
    assert Run(run.folder).result()["epochs"] == 1.5
