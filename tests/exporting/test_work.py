"""A file that does not compute what the network does never gets its name."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.exporting import formats, work
from cifar_lab.exporting.kinds import Format, Input
from cifar_lab.trained import Trained
from tests.exporting.networks import exported, network


def perturbed(kind: Format, trained: Trained, takes: Input) -> bytes:
    other = network(Path(trained.weights).parent)
    other.model.load_state_dict(trained.model.state_dict())
    with torch.no_grad():
        other.model.get_parameter("fc_layers.6.bias")[3] += 0.01
    return formats.encode(kind, replace(other, facts=trained.facts), takes)


@pytest.mark.parametrize("kind", Format)
def test_a_file_of_other_weights_is_refused_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format
) -> None:
    trained = network(tmp_path)
    monkeypatch.setattr(work, "encode", perturbed)
    (one,) = exported(trained, tmp_path / "out", kind)
    assert one.problem is not None
    assert "largest difference 1.0e-02 on 16 test images, more than --tolerance 0.0001" in one.problem
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", Format)
def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format) -> None:
    trained = network(tmp_path)
    (tmp_path / "out").mkdir()
    (before,) = exported(trained, tmp_path / "out", Format.WEIGHTS)
    content = before.path.read_bytes()
    monkeypatch.setattr(work, "encode", lambda *_: b"nothing of this kind")
    (one,) = exported(trained, tmp_path / "out", kind)
    assert one.problem is not None
    assert one.problem.startswith("the file was removed, as it cannot be used: ")
    assert before.path.read_bytes() == content
    assert list((tmp_path / "out").iterdir()) == [before.path]


def test_a_network_that_no_graph_can_follow_is_one_line(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] if images.sum() > 0 else images.flatten(1)[:, 10:20]

    trained = replace(network(tmp_path), model=Choosing())
    (one,) = exported(trained, tmp_path / "out", Format.TORCH_EXPORT)
    assert one.problem is not None
    assert one.problem.startswith("the network cannot be exported: ")
    assert "\n" not in one.problem


def test_a_network_of_nan_is_refused(tmp_path: Path) -> None:
    trained = network(tmp_path)
    with torch.no_grad():
        trained.model.get_parameter("fc_layers.6.bias")[0] = math.nan
    (one,) = exported(trained, tmp_path / "out", Format.WEIGHTS)
    assert one.problem is not None
    assert "largest difference nan" in one.problem
