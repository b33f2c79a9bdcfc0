"""A file that does not compute what the network does never gets its name."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.export import writing
from cifar_lab.export.kinds import Format
from cifar_lab.export.writing import Exported
from cifar_lab.trained import Trained
from tests.export.networks import exported, network

ONNX_IS_SLOW = [pytest.param(kind, marks=pytest.mark.slow if kind is Format.ONNX else ()) for kind in Format]


@pytest.mark.parametrize("kind", ONNX_IS_SLOW)
def test_a_file_of_other_weights_is_refused_and_leaves_nothing(
    cnn: tuple[Trained, dict[Format, Exported]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format
) -> None:
    trained, files = cnn
    (file,) = (files[kind],) if kind in files else exported(trained, tmp_path / "right", kind)
    content = file.path.read_bytes()
    monkeypatch.setattr(writing, "encode", lambda *_: content)
    other = copy.deepcopy(trained.model)
    with torch.no_grad():
        other.get_parameter("fc_layers.6.bias")[3] += 0.01
    (one,) = exported(replace(trained, model=other), tmp_path / "out", kind)
    assert one.problem is not None
    for fact in ("1.0e-02", "--tolerance", "0.0001"):
        assert fact in one.problem
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", Format)
def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format) -> None:
    trained = network(tmp_path)
    (tmp_path / "out").mkdir()
    (before,) = exported(trained, tmp_path / "out", Format.WEIGHTS)
    content = before.path.read_bytes()
    monkeypatch.setattr(writing, "encode", lambda *_: b"nothing of this kind")
    (one,) = exported(trained, tmp_path / "out", kind)
    assert one.problem is not None
    assert "\n" not in one.problem
    assert before.path.read_bytes() == content
    assert list((tmp_path / "out").iterdir()) == [before.path]


def test_a_network_that_no_graph_can_follow_is_one_line(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] if images.sum() > 0 else images.flatten(1)[:, 10:20]

    trained = replace(network(tmp_path), model=Choosing())
    (one,) = exported(trained, tmp_path / "out", Format.TORCH_EXPORT)
    assert one.problem is not None
    assert "\n" not in one.problem
    assert not list((tmp_path / "out").iterdir())


def test_a_network_of_nan_is_refused(tmp_path: Path) -> None:
    trained = network(tmp_path)
    with torch.no_grad():
        trained.model.get_parameter("fc_layers.6.bias")[0] = math.nan
    (one,) = exported(trained, tmp_path / "out", Format.WEIGHTS)
    assert one.problem is not None
    assert re.search(r"\bnan\b", one.problem)
