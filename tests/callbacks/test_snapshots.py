"""Weights over the epochs, as plain files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cifar_lab.config import build
from cifar_lab.runs import CheckpointError, Run, read_checkpoint
from cifar_lab.train import run
from tests.comparison import equal
from tests.conftest import TINY, Compose

SNAPSHOTS = (*TINY, "callbacks=snapshots", "logger=none", "trainer.precision=32-true")


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: Run(run([*SNAPSHOTS, *arguments])["folder"])


def test_the_initial_weights_and_every_epochs_are_kept_as_plain_state_dicts(
    train: Callable[..., Run], composed: Compose
) -> None:
    trained = train()
    assert {epoch: path.name for epoch, path in trained.snapshots().items()} == {
        0: "epoch_0000.pt",
        1: "epoch_0001.pt",
        2: "epoch_0002.pt",
    }
    network = build(composed(*TINY).model)
    for epoch, path in trained.snapshots().items():
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state)
        assert equal(state, trained.snapshot(epoch))
        assert int(next(v for k, v in state.items() if k.endswith("num_batches_tracked"))) == 9 * epoch
    last = read_checkpoint(trained.last_checkpoint)["state_dict"]
    assert all(torch.equal(value, last[f"model.{name}"]) for name, value in trained.snapshot(2).items())


def test_the_initial_weights_are_those_that_every_run_of_the_seed_starts_from(
    train: Callable[..., Run], composed: Compose
) -> None:
    trained = train("seed=3")
    torch.manual_seed(3)
    assert equal(dict(build(composed(*TINY).model).state_dict()), trained.snapshot(0))


@pytest.mark.parametrize(("epochs", "every", "kept"), [(4, 2, [0, 2, 4]), (3, 2, [0, 2, 3]), (2, 5, [0, 2])])
def test_every_so_many_epochs_and_the_last_are_kept(
    train: Callable[..., Run], epochs: int, every: int, kept: list[int]
) -> None:
    trained = train(f"epochs={epochs}", f"callbacks.snapshots.every_epochs={every}", "data.num_train=20")
    assert list(trained.snapshots()) == kept


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_where_weights_are_averaged_the_raw_ones_are_kept(train: Callable[..., Run], averaging: str) -> None:
    extra = ["averaging.start=0.5"] if averaging == "swa" else ["averaging.decay=0.5"]
    averaged = train(f"averaging={averaging}", *extra, "hydra.run.dir=averaged")
    plain = train("hydra.run.dir=plain")
    assert {epoch for epoch in plain.snapshots() if not equal(averaged.snapshot(epoch), plain.snapshot(epoch))} == set()


def test_a_snapshot_that_was_not_kept_or_is_damaged_is_named(train: Callable[..., Run]) -> None:
    trained = train("epochs=1")
    with pytest.raises(FileNotFoundError, match=r"epoch_0007\.pt"):
        trained.snapshot(7)
    trained.snapshots()[1].write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"epoch_0001\.pt is damaged"):
        trained.snapshot(1)
    assert Run("nowhere").snapshots() == {}
