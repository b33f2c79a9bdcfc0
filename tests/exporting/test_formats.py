"""Every format computes what the network does, for every architecture, and says what it is."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from cifar_lab.exporting.kinds import Format, Input
from cifar_lab.trained import Trained, load
from tests.exporting.networks import ACTIVATIONS, NETWORKS, exported, network, pixels

SLOW = pytest.mark.slow
# Each of them once by default, all of them among the slow ones: a graph takes two to six seconds to follow.
CASES = [
    *(pytest.param(option, "leaky_relu", True, marks=() if option == "cnn" else SLOW) for option in NETWORKS),
    *(pytest.param(option, "relu", False, marks=SLOW) for option in NETWORKS),
    *(pytest.param("cnn", activation, True, marks=SLOW) for activation in ACTIVATIONS if activation != "leaky_relu"),
    pytest.param("resnet14", "swish", True, marks=SLOW),
]


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images})
    return found


def check(found: object, trained: Trained, images: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found), trained.logits_of_pixels(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("option", "activation", "bn"), CASES)
def test_onnx_and_torch_export_give_the_networks_logits_for_batches_of_any_size(
    tmp_path: Path, option: str, activation: str, bn: bool
) -> None:
    trained = network(tmp_path, option, activation, bn)
    graph, program = exported(trained, tmp_path / "out", Format.ONNX, Format.TORCH_EXPORT)
    assert (graph.problem, program.problem) == (None, None)
    module = torch.export.load(program.path).module()
    for count in (1, 2, 7):
        images = pixels(count)
        check(logits(graph.path, images.numpy()), trained, images)
        check(module(images), trained, images)


@pytest.mark.parametrize(("option", "activation", "bn"), [case.values for case in CASES])
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


def test_a_graph_of_floats_takes_images_from_0_to_1(tmp_path: Path) -> None:
    trained, images = network(tmp_path), pixels()
    graph, program = exported(trained, tmp_path / "out", Format.ONNX, Format.TORCH_EXPORT, takes=Input.FLOAT)
    floats = images.permute(0, 3, 1, 2).float() / 255
    check(logits(graph.path, floats.contiguous().numpy()), trained, images)
    check(torch.export.load(program.path).module()(floats), trained, images)


def test_each_file_says_what_it_is_to_who_has_no_cifar_lab(tmp_path: Path) -> None:
    trained = network(tmp_path)
    kinds = (Format.SAFETENSORS, Format.ONNX, Format.TORCH_EXPORT)
    safe, graph, program = (one.path for one in exported(trained, tmp_path / "out", *kinds))
    with safe_open(safe, framework="pt") as file:
        texts = [file.metadata()["cifar_lab"]]
    model = onnx.load(graph)
    texts += [entry.value for entry in model.metadata_props if entry.key == "cifar_lab"]
    extra = {"cifar_lab.json": ""}
    torch.export.load(program, extra_files=extra)
    texts.append(extra["cifar_lab.json"])
    for text in texts:
        told = json.loads(text)
        assert told["classes"] == list(trained.classes)
        assert told["mean"] == [0.5, 0.4, 0.3]
        assert told["names"] == list(trained.model.state_dict())
        assert told["versions"]["torch"] == version("torch")
    for text in texts[1:]:
        assert json.loads(text)["input"] == {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", 32, 32, 3],
            "range": [0, 255],
            "colours": "RGB",
        }
    (size, *_), *_ = (value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output))
    assert size.dim_param == "batch"


def test_no_file_says_where_it_was_made(tmp_path: Path) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for one in exported(network(tmp_path), tmp_path / "out", *Format):
        content = one.path.read_bytes()
        assert here not in content, one.kind
        assert str(tmp_path).encode() not in content, one.kind
