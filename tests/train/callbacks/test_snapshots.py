"""Weights over the epochs, as plain files."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar_lab.config import build
from cifar_lab.runs import CheckpointError, Run, read_checkpoint
from cifar_lab.train.callbacks.snapshots import Snapshots
from cifar_lab.train.classifier import Classifier
from tests.comparison import equal
from tests.conftest import TINY, Compose, Train
from tests.train.fits import fit, images, network

SNAPSHOTS = (*TINY, "callbacks=snapshots", "logger=none", "trainer.precision=32-true", "seed=3")


def test_snapshots_of_the_start_and_every_epoch_are_plain_state_dicts(trained: Train, composed: Compose) -> None:
    run = trained(*SNAPSHOTS)
    names = {epoch: path.name for epoch, path in run.snapshots().items()}
    assert names == {0: "epoch_0000.pt", 1: "epoch_0001.pt", 2: "epoch_0002.pt"}
    torch.manual_seed(3)
    model = build(composed(*TINY).model)
    assert equal(dict(model.state_dict()), run.snapshot(0))  # all runs with this seed start from them
    for epoch, path in run.snapshots().items():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state)
        assert equal(state, run.snapshot(epoch))
        assert int(next(v for k, v in state.items() if k.endswith("num_batches_tracked"))) == 9 * epoch
    last = read_checkpoint(run.last_checkpoint)["state_dict"]
    assert all(torch.equal(value, last[f"model.{name}"]) for name, value in run.snapshot(2).items())


@pytest.mark.parametrize(("epochs", "every", "kept"), [(4, 2, [0, 2, 4]), (3, 2, [0, 2, 3]), (2, 5, [0, 2])])
def test_snapshots_are_kept_at_intervals_and_of_the_last_epoch(
    tmp_path: Path, epochs: int, every: int, kept: list[int]
) -> None:
    classifier = Classifier(network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1))
    fit(classifier, Snapshots(Run(tmp_path), every), data=images(20), max_epochs=epochs, enable_checkpointing=False)
    assert list(Run(tmp_path).snapshots()) == kept


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_snapshots_of_averaged_runs_are_the_raw_weights(trained: Train, averaging: str) -> None:
    extra = {"ema": "averaging.decay=0.5", "swa": "averaging.start=0.5"}[averaging]
    averaged, plain = trained(*SNAPSHOTS, f"averaging={averaging}", extra, name="averaged"), trained(*SNAPSHOTS)
    assert [epoch for epoch in plain.snapshots() if equal(averaged.snapshot(epoch), plain.snapshot(epoch))] == [0, 1, 2]
    last = read_checkpoint(averaged.last_checkpoint)["state_dict"]
    same = all(torch.equal(value, last[f"model.{name}"]) for name, value in averaged.snapshot(2).items())
    assert same == (averaging == "swa")  # SWA's average of a single epoch is that epoch


def test_a_missing_or_damaged_snapshot_is_named(trained: Train, tmp_path: Path) -> None:
    run = trained(*SNAPSHOTS)
    with pytest.raises(FileNotFoundError, match=r"epoch_0007\.pt"):
        run.snapshot(7)
    run.snapshots()[1].write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"epoch_0001\.pt"):
        run.snapshot(1)
    assert Run(tmp_path / "nowhere").snapshots() == {}
