"""Tests of my components: run `pytest`."""

from pathlib import Path

import pytest
import torch
from my_lab import PolyLoss, Separable
from torch import nn

from cifar_lab import train


def test_the_loss_is_cross_entropy_and_a_share_of_the_other_probability() -> None:
    logits, labels = torch.randn(8, 10), torch.arange(8)
    others = 1 - logits.softmax(1)[torch.arange(8), labels]
    expected = nn.functional.cross_entropy(logits, labels) + 2 * others.mean()
    torch.testing.assert_close(PolyLoss(2.0)(logits, labels), expected)


def test_the_network_maps_images_to_logits() -> None:
    assert Separable([8, 16], nn.ReLU, num_classes=10)(torch.randn(4, 3, 32, 32)).shape == (4, 10)


def test_a_run_with_both_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    words = ["loss=mine", "model=mine", "model.widths=[16,32]", "data=synthetic", "data.num_train=500", "epochs=4"]
    words += ["batch_size=10", "optimizer.lr=0.01", "trainer=cpu", "logger=none", "data.num_test=200"]
    result = train.run([*words, f"hydra.run.dir={tmp_path}/run"])
    assert result["test/acc"] > 0.2  # chance is 0.1
