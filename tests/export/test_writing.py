"""A file that does not compute what the network does never gets its name."""

import copy
import math
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
Files = tuple[Trained, dict[Format, Exported]]


@pytest.mark.parametrize("kind", ONNX_IS_SLOW)
@pytest.mark.parametrize(("change", "difference"), [(0.01, "1.0e-02"), (math.nan, " nan ")])
def test_a_file_of_other_weights_is_refused_and_leaves_nothing(
    cnn: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format, change: float, difference: str
) -> None:
    trained, files = cnn
    (file,) = (files[kind],) if kind in files else exported(trained, tmp_path / "right", kind)
    content = file.path.read_bytes()
    monkeypatch.setattr(writing, "encode", lambda *_: content)
    other = copy.deepcopy(trained.model)
    with torch.no_grad():
        other.get_parameter("fc_layers.6.bias")[3] += change
    (one,) = exported(replace(trained, model=other), tmp_path / "out", kind)
    assert one.problem is not None
    for fact in (difference, "--tolerance", "0.0001"):
        assert fact in one.problem
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", Format)
def test_a_damaged_file_is_refused_and_the_one_before_it_stays(
    cnn: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format
) -> None:
    trained, files = cnn
    before = tmp_path / files.get(kind, files[Format.SAFETENSORS]).path.name
    before.write_bytes(b"whole")
    monkeypatch.setattr(writing, "encode", lambda *_: b"nothing of this kind")
    (one,) = exported(trained, tmp_path, kind)
    assert one.problem is not None
    assert "\n" not in one.problem
    assert (before.read_bytes(), list(tmp_path.iterdir())) == (b"whole", [before])


def test_a_network_that_no_graph_can_follow_is_one_line(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] if images.sum() > 0 else images.flatten(1)[:, 10:20]

    trained = replace(network(tmp_path), model=Choosing())
    (one,) = exported(trained, tmp_path / "out", Format.TORCH_EXPORT)
    assert one.problem is not None
    assert "\n" not in one.problem
    assert not list((tmp_path / "out").iterdir())
