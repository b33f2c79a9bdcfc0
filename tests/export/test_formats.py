"""Every format computes what the network does, for every architecture, and says what it is."""

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

Files = tuple[Trained, dict[Format, Exported]]
# A graph takes two to six seconds to follow.
CASES = [
    *((option, "leaky_relu", True) for option in NETWORKS),
    *((option, "relu", False) for option in NETWORKS),
    *(("cnn", activation, True) for activation in ACTIVATIONS if activation != "leaky_relu"),
    ("resnet14", "swish", True),
]
QUICK = [
    *(("cnn", "leaky_relu", True), ("vgg_a_dropout", "leaky_relu", True)),
    *(("vgg_a_light", "relu", False), ("resnet14", "leaky_relu", True)),
]


def test_torch_export_gives_the_networks_logits_for_batches_of_any_size(cnn: Files) -> None:
    trained, files = cnn
    assert [one.problem for one in files.values()] == [None] * len(files)
    check_graph(files[Format.TORCH_EXPORT].path, trained)


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
def test_safetensors_and_weights_hold_the_network(tmp_path: Path, option: str, activation: str, bn: bool) -> None:
    trained = network(tmp_path, option, activation, bn)
    safe, weights = exported(trained, tmp_path / "out", Format.SAFETENSORS, Format.WEIGHTS)
    assert (safe.problem, weights.problem) == (None, None)
    again, images = load(safe.path), pixels()
    check(again.logits_of_pixels(images), trained, images)
    assert again.making == trained.making
    assert (list(again.mean), list(again.std)) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert not again.assumed
    state = torch.load(weights.path, weights_only=True)
    assert list(state) == list(trained.model.state_dict())
    assert weights.path.name == f"{option}_{activation}_{bn}.pth"


@pytest.mark.parametrize("kind", [Format.TORCH_EXPORT, pytest.param(Format.ONNX, marks=pytest.mark.slow)])
def test_a_graph_of_floats_takes_images_from_0_to_1(tmp_path: Path, kind: Format) -> None:
    trained, images = network(tmp_path), pixels()
    (graph,) = exported(trained, tmp_path / "out", kind, takes=Input.FLOAT)
    floats = (images.permute(0, 3, 1, 2).float() / 255).contiguous()
    found = onnx_logits(graph.path, floats) if kind is Format.ONNX else torch.export.load(graph.path).module()(floats)
    check(found, trained, images)


def test_each_file_says_what_it_is_to_who_has_no_cifar_lab(cnn: Files) -> None:
    trained, files = cnn
    with safe_open(files[Format.SAFETENSORS].path, framework="pt") as file:
        check_description(file.metadata()["cifar_lab"], trained)
    extra = {"cifar_lab.json": ""}
    torch.export.load(files[Format.TORCH_EXPORT].path, extra_files=extra)
    check_description(extra["cifar_lab.json"], trained)
    check_input(extra["cifar_lab.json"])


def test_no_file_says_where_it_was_made(cnn: Files) -> None:
    trained, files = cnn
    for one in files.values():
        content = one.path.read_bytes()
        for folder in (CHECKOUT, trained.weights.parent):
            assert str(folder).encode() not in content, one.kind
