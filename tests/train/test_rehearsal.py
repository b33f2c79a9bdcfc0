"""Network, loss, optimizer and schedule that do not work together are refused in one line, before a folder is made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from cifar_lab.config import build, checked
from cifar_lab.machine import hardware
from cifar_lab.train.assembly import make_classifier
from cifar_lab.train.rehearsal import rehearse
from tests.conftest import TINY, Lab, refusal

WORDS = [word for word in TINY if not word.startswith("model.")]
SOURCE = """
import threading

import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, features=3072, layer=nn.Linear):
        super().__init__()
        self.layer = layer(features, 10) if layer is nn.Linear else layer(10)

    def forward(self, images):
        return self.layer(images.flatten(1))


class Pair(Linear):
    def forward(self, images):
        return super().forward(images), None


class Features(Linear):
    def forward(self, images):
        return images.flatten(1) + 0 * super().forward(images).sum()


class Short(Linear):
    def __init__(self):
        super().__init__(3000)


class Frozen(Linear):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Lazy(Linear):
    def __init__(self):
        super().__init__(layer=nn.LazyLinear)


class Normalised(Linear):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(10)

    def forward(self, images):
        return self.norm(super().forward(images))


class Locked(Linear):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Parts(Linear):
    def forward(self, images):
        logits = super().forward(images)
        return logits.unflatten(0, (-1, 3)).flatten(0, 1) if self.training else logits


class Elsewhere(Linear):
    def forward(self, images):
        raise RuntimeError("only on a GPU")


class OfEach(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, reduction="none")


class OfOne(nn.Module):
    def forward(self, logits):
        return logits.mean()
"""


@pytest.mark.parametrize(
    ("group", "option", "facts"),
    [
        ("model", "_target_: own_lab.Pair", ("own_lab.Pair", "tuple", "logits (N, classes)")),
        ("model", "_target_: own_lab.Features", ("own_lab.Features", "(2, 3072)", "(2, 10)")),
        ("model", "_target_: own_lab.Short", ("own_lab.Short", "(N, 3, 32, 32)", "own_lab.py:14")),
        ("model", "_target_: own_lab.Frozen", ("own_lab.Frozen", "no weight is trainable")),
        ("model", "_target_: own_lab.Linear\nfeature: 3072", ("feature",)),
        ("loss", "_target_: own_lab.OfEach", ("own_lab.OfEach", "(2,)", "mean")),
        ("loss", "_target_: own_lab.OfOne", ("own_lab.OfOne", "logits (N, classes)", "labels (N,)")),
        ("optimizer", "_target_: torch.optim.Muon\n_partial_: true", ("torch.optim.Muon", "2D")),
        (
            "scheduler",
            "_target_: torch.optim.lr_scheduler.StepLR\n_partial_: true\nlightning: {interval: epoch, frequency: 1}",
            ("torch.optim.lr_scheduler.StepLR", "step_size"),
        ),
    ],
)
def test_a_users_part_that_does_not_fit_is_named(
    lab: Lab, outside: Callable[..., tuple[str, ...]], group: str, option: str, facts: tuple[str, ...]
) -> None:
    line = refusal(lab(*WORDS, "logger=none", *outside("own_lab", SOURCE, group, option)))
    assert all(fact in line for fact in facts), line
    assert not Path("outputs").exists()


def test_a_callback_that_lightning_refuses_is_named(lab: Lab, tmp_path: Path) -> None:
    option = tmp_path / "conf" / "callbacks" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("defaults: [none]\nrates:\n  _target_: lightning.pytorch.callbacks.LearningRateMonitor\n")
    refusal(lab("--config-dir", str(tmp_path / "conf"), "callbacks=mine", *TINY, "logger=none"), "LearningRateMonitor")
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["trainer.limit_train_batches=0.1"], ("trainer.limit_train_batches=0.1",)),
        (["scheduler=one_cycle", "scheduler.total_steps=1"], ("scheduler.total_steps=1", "null")),
        (
            ["scheduler=one_cycle", "scheduler.total_steps=20", "scheduler.pct_start=0.05"],
            ("scheduler.pct_start=0.05 of 20",),
        ),
        (["averaging=ema", "averaging.update_every_n_steps=99"], ("averaging.update_every_n_steps=99",)),
        (["data.num_train=1", "protocol=last"], ("one training image",)),
    ],
)
def test_settings_that_leave_nothing_to_train_are_named(lab: Lab, words: list[str], facts: tuple[str, ...]) -> None:
    line = refusal(lab(*WORDS, "logger=none", *words))
    assert all(fact in line for fact in facts), line
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("words", "option", "note"),
    [
        (
            ["data.num_train=129", "protocol=last", "batch_size=32"],
            ("model", "_target_: own_lab.Normalised"),
            "one image",
        ),
        ([], ("model", "_target_: own_lab.Lazy"), ""),
        (["model.filters=[4,4,4]"], ("optimizer", "_target_: torch.optim.LBFGS\n_partial_: true\nmax_iter: 2"), ""),
        ([], ("model", "_target_: own_lab.Locked"), ""),
        ([], ("model", "_target_: own_lab.Parts"), ""),
        (["scheduler=one_cycle", "scheduler.pct_start=0"], None, ""),
        (["optimizer.fused=true"], None, ""),
    ],
)
def test_unusual_but_valid_combinations_work(
    lab: Lab, outside: Callable[..., tuple[str, ...]], words: list[str], option: tuple[str, str] | None, note: str
) -> None:
    own = () if option is None else outside("own_lab", SOURCE, *option)
    outcome = lab(*WORDS, "logger=none", *words, *own)
    assert outcome.code == 0, outcome.stderr
    assert note in outcome.stdout


def test_a_rehearsal_changes_no_number(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*WORDS, "logger=none", "model.dropout=0.5"]
    assert lab(*words, "hydra.run.dir=with").code == 0
    monkeypatch.setattr("cifar_lab.train.fitting.rehearse", lambda *_: None)
    assert lab(*words, "hydra.run.dir=without").code == 0
    (one,), (other,) = (Path(name).glob("weights/*.pth") for name in ("with", "without"))
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    assert all(first[name].equal(second[name]) for name in first)


def test_parts_that_may_need_a_different_device_are_left_to_the_run(outside: Callable[..., tuple[str, ...]]) -> None:
    config = OmegaConf.create(
        checked([*WORDS, *outside("own_lab", SOURCE, "model", "_target_: own_lab.Elsewhere")]).composition
    )
    datamodule = build(config.data)
    classifier = make_classifier(config, datamodule, hardware.choose("cpu"))
    rehearse(config, classifier, datamodule, "cuda")
    with pytest.raises(ValueError, match="only on a GPU"):
        rehearse(config, classifier, datamodule, "cpu")
