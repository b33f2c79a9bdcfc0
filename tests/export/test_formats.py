"""Every format computes what the network does, for every architecture, and describes it."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.writing import Exported
from cifar_lab.trained import Trained, load
from tests.conftest import CHECKOUT
from tests.export.networks import (
    ACTIVATIONS,
    NETWORKS,
    check,
    check_description,
    check_graph,
    check_input,
    exported,
    network,
    onnx_logits,
    pixels,
)

# A graph takes two to six seconds to trace.
CASES = [
    *((option, "leaky_relu", True) for option in NETWORKS),
    *((option, "relu", False) for option in NETWORKS),
    *(("cnn", activation, True) for activation in ACTIVATIONS if activation != "leaky_relu"),
    ("resnet14", "swish", True),
]
QUICK = [("vgg_a_dropout", "leaky_relu", True), ("vgg_a_light", "relu", False), ("resnet14", "leaky_relu", True)]


def test_files_compute_and_describe_and_hold_no_paths(
    cnn: tuple[Trained, dict[Format, Exported]],
) -> None:
    trained, files = cnn
    graph = files[Format.TORCH_EXPORT].path
    check_graph(graph, trained)
    extra = {"cifar_lab.json": ""}
    torch.export.load(graph, extra_files=extra)
    check_input(extra["cifar_lab.json"])
    with safe_open(files[Format.SAFETENSORS].path, framework="pt") as file:
        for text in (extra["cifar_lab.json"], file.metadata()["cifar_lab"]):
            check_description(text, trained)
    for one in files.values():
        assert one.problem is None
        for folder in (CHECKOUT, trained.weights.parent):
            assert str(folder).encode() not in one.path.read_bytes(), one.kind


@pytest.mark.slow
@pytest.mark.parametrize(("option", "activation", "bn"), CASES)
def test_onnx_and_torch_export_give_every_networks_logits(
    tmp_path: Path, option: str, activation: str, bn: bool
) -> None:
    trained = network(tmp_path, option, activation, bn)
    for graph in exported(trained, tmp_path / "out", Format.ONNX, Format.TORCH_EXPORT):
        assert graph.problem is None
        check_graph(graph.path, trained)


@pytest.mark.parametrize(
    ("option", "activation", "bn"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_safetensors_holds_the_network(tmp_path: Path, option: str, activation: str, bn: bool) -> None:
    trained = network(tmp_path, option, activation, bn)
    (file,) = exported(trained, tmp_path / "out", Format.SAFETENSORS)
    assert file.problem is None
    again, images = load(file.path), pixels()
    check(again.logits_of_pixels(images), trained, images)
    assert again.making == trained.making
    assert (list(again.mean), list(again.std)) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert not again.assumed


@pytest.mark.parametrize("kind", [Format.TORCH_EXPORT, pytest.param(Format.ONNX, marks=pytest.mark.slow)])
def test_a_graph_of_floats_takes_images_from_0_to_1(tmp_path: Path, kind: Format) -> None:
    trained, images = network(tmp_path), pixels()
    (graph,) = exported(trained, tmp_path / "out", kind, takes=Input.FLOAT)
    floats = (images.permute(0, 3, 1, 2).float() / 255).contiguous()
    found = onnx_logits(graph.path, floats) if kind is Format.ONNX else torch.export.load(graph.path).module()(floats)
    check(found, trained, images)
