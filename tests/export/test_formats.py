"""Every format computes what the network does; a file that differs never gets its name."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import onnxruntime
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor, nn

from cifar_lab.config import build, conf_folder
from cifar_lab.export import writing
from cifar_lab.export.formats import on_cpu
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.writing import Exported, Images, export
from cifar_lab.trained import Overrides, Trained, load
from tests.conftest import holds

ACTIVATIONS = {file.stem: yaml.safe_load(file.read_text()) for file in (conf_folder() / "activation").glob("*.yaml")}
_VGG = {"_target_": "cifar_lab.models.VGG", "stages": [[4], [8], [8, 8], [8, 8], [8, 8]], "hidden": 8}
NETWORKS = {
    "cnn": {"_target_": "cifar_lab.models.CNN", "filters": [4, 4, 4]},
    "vgg_a": _VGG,
    "vgg_a_light": {**_VGG, "stages": [[4], [8]], "by_stage": True},
    "vgg_a_dropout": {**_VGG, "by_stage": True, "dropout": 0.5},
    "resnet14": {"_target_": "cifar_lab.models.ResNet", "blocks": [2, 2, 2], "widths": [8, 8, 16]},
    "resnet18": {"_target_": "cifar_lab.models.ResNet", "blocks": [2, 2, 2, 2], "widths": [8, 8, 8, 16]},
    "speed_cnn": {"_target_": "cifar_lab.models.SpeedCNN", "widths": [8, 8, 16]},
}
# Tracing a graph takes two to six seconds.
CASES = [
    *((option, "leaky_relu", True) for option in NETWORKS),
    *((option, "relu", False) for option in NETWORKS),
    *(("cnn", activation, True) for activation in sorted(ACTIVATIONS) if activation != "leaky_relu"),
    ("resnet14", "swish", True),
]
QUICK = [("vgg_a_dropout", "leaky_relu", True), ("vgg_a_light", "relu", False), ("resnet14", "leaky_relu", True)]
GRAPHS = [Format.TORCH_EXPORT, pytest.param(Format.ONNX, marks=pytest.mark.slow)]


def network(folder: Path, option: str = "cnn", activation: str = "leaky_relu", bn: bool = True) -> Trained:
    """Return a network whose BatchNorm has running statistics, loaded from its weight file."""
    made = {**NETWORKS[option], "activation": ACTIVATIONS[activation], "batch_norm": bn}
    model = build(OmegaConf.create(made))
    model.train()(torch.randn(32, 3, 32, 32))
    path = folder / f"{option}_{activation}_{bn}.pth"
    torch.save(model.state_dict(), path)
    return on_cpu(load(path, Overrides(activation=activation, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))))


def pixels(count: int = 7) -> Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


def export_network(trained: Trained, folder: Path, *formats: Format, takes: Input = Input.UINT8) -> list[Exported]:
    return list(export(trained, formats, takes, folder, Images(pixels(16), "16 test images"), 1e-4, Overrides()))


def graph_logits(graph: Path, images: Tensor) -> Tensor:
    """Compute a graph file's logits with the library that its users have."""
    if graph.suffix == ".pt2":
        return torch.export.load(graph).module()(images)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def check(found: Tensor, trained: Trained, images: Tensor) -> None:
    """Check that logits of uint8 images equal those of a network."""
    torch.testing.assert_close(found, trained.logits_of_pixels(images), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_onnx_and_torch_export_give_every_networks_logits(tmp_path: Path, case: tuple[str, str, bool]) -> None:
    trained = network(tmp_path, *case)
    for graph in export_network(trained, tmp_path / "out", Format.ONNX, Format.TORCH_EXPORT):
        assert graph.problem is None
        for images in map(pixels, (1, 2, 7)):
            check(graph_logits(graph.path, images), trained, images)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_safetensors_holds_the_network(tmp_path: Path, case: tuple[str, str, bool]) -> None:
    trained = network(tmp_path, *case)
    (file,) = export_network(trained, tmp_path / "out", Format.SAFETENSORS)
    assert file.problem is None
    again, images = load(file.path), pixels()
    check(again.logits_of_pixels(images), trained, images)
    assert again.making == trained.making
    assert (list(again.mean), list(again.std)) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert not again.assumed


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_of_floats_takes_images_from_0_to_1(tmp_path: Path, kind: Format) -> None:
    trained, images = network(tmp_path), pixels()
    (graph,) = export_network(trained, tmp_path / "out", kind, takes=Input.FLOAT)
    floats = (images.permute(0, 3, 1, 2).float() / 255).contiguous()
    check(graph_logits(graph.path, floats), trained, images)


@pytest.mark.parametrize("kind", [Format.SAFETENSORS, *GRAPHS])
def test_wrong_and_damaged_files_are_refused_and_the_previous_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format
) -> None:
    trained = network(tmp_path)
    (right,) = export_network(trained, tmp_path / "out", kind)
    content = right.path.read_bytes()
    limit = ("--tolerance", "0.0001")
    for change, written, facts in (
        (0.01, content, ("1.0e-02", *limit)),
        (math.nan, content, (" nan ", *limit)),
        (0.0, b"nothing of this kind", ()),
    ):
        monkeypatch.setattr(writing, "encode", Mock(return_value=written))
        other = copy.deepcopy(trained.model)
        with torch.no_grad():
            other.get_parameter("fc_layers.6.bias")[3] += change
        (one,) = export_network(replace(trained, model=other), tmp_path / "out", kind)
        assert one.problem is not None and "\n" not in one.problem
        holds(one.problem, *facts)
        assert (right.path.read_bytes(), list((tmp_path / "out").iterdir())) == (content, [right.path])


def test_a_network_that_cannot_be_traced_gives_a_one_line_error(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] if images.sum() > 0 else images.flatten(1)[:, 10:20]

    trained = replace(network(tmp_path), model=Choosing())
    (one,) = export_network(trained, tmp_path / "out", Format.TORCH_EXPORT)
    assert one.problem is not None
    assert "\n" not in one.problem
    assert not list((tmp_path / "out").iterdir())
