"""Every format computes what the network does and describes it; a file that does not never gets its name."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.export import writing
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.writing import Exported
from cifar_lab.trained import Trained, load
from tests.export.networks import ACTIVATIONS, NETWORKS, check, check_graph, exported, network, onnx_logits, pixels

# A graph takes two to six seconds to trace.
CASES = [
    *((option, "leaky_relu", True) for option in NETWORKS),
    *((option, "relu", False) for option in NETWORKS),
    *(("cnn", activation, True) for activation in ACTIVATIONS if activation != "leaky_relu"),
    ("resnet14", "swish", True),
]
QUICK = [("vgg_a_dropout", "leaky_relu", True), ("vgg_a_light", "relu", False), ("resnet14", "leaky_relu", True)]
GRAPHS = [Format.TORCH_EXPORT, pytest.param(Format.ONNX, marks=pytest.mark.slow)]
Files = tuple[Trained, dict[Format, Exported]]


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A network, and its file of each format but ONNX: it takes the longest, and `test_command.py` reads one."""
    folder = tmp_path_factory.mktemp("cnn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = network(folder)
        files = exported(trained, folder / "out", Format.SAFETENSORS, Format.TORCH_EXPORT)
        return trained, {one.kind: one for one in files}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_onnx_and_torch_export_give_every_networks_logits(tmp_path: Path, case: tuple[str, str, bool]) -> None:
    trained = network(tmp_path, *case)
    for graph in exported(trained, tmp_path / "out", Format.ONNX, Format.TORCH_EXPORT):
        assert graph.problem is None
        check_graph(graph.path, trained)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_safetensors_holds_the_network(tmp_path: Path, case: tuple[str, str, bool]) -> None:
    trained = network(tmp_path, *case)
    (file,) = exported(trained, tmp_path / "out", Format.SAFETENSORS)
    assert file.problem is None
    again, images = load(file.path), pixels()
    check(again.logits_of_pixels(images), trained, images)
    assert again.making == trained.making
    assert (list(again.mean), list(again.std)) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert not again.assumed


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_of_floats_takes_images_from_0_to_1(tmp_path: Path, kind: Format) -> None:
    trained, images = network(tmp_path), pixels()
    (graph,) = exported(trained, tmp_path / "out", kind, takes=Input.FLOAT)
    floats = (images.permute(0, 3, 1, 2).float() / 255).contiguous()
    found = onnx_logits(graph.path, floats) if kind is Format.ONNX else torch.export.load(graph.path).module()(floats)
    check(found, trained, images)


@pytest.mark.parametrize("kind", [Format.SAFETENSORS, *GRAPHS])
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
