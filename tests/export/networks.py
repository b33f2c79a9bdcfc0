"""Files of weights of small networks, and an export of them in this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor

from cifar_lab.config import build, conf_folder
from cifar_lab.export.formats import on_cpu
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.writing import Exported, Images, export
from cifar_lab.trained import Said, Trained, load

_FILES = sorted((conf_folder() / "activation").glob("*.yaml"))
ACTIVATIONS = {file.stem: yaml.safe_load(file.read_text()) for file in _FILES}
_VGG = {"_target_": "cifar_lab.models.VGG", "stages": [[4], [8], [8, 8], [8, 8], [8, 8]], "hidden": 8}
NETWORKS: dict[str, Mapping[str, Any]] = {
    "cnn": {"_target_": "cifar_lab.models.CNN", "filters": [4, 4, 4]},
    "vgg_a": _VGG,
    "vgg_a_light": {**_VGG, "stages": [[4], [8]], "by_stage": True},
    "vgg_a_dropout": {**_VGG, "by_stage": True, "dropout": 0.5},
    "resnet14": {"_target_": "cifar_lab.models.ResNet", "blocks": [2, 2, 2], "widths": [8, 8, 16]},
    "resnet18": {"_target_": "cifar_lab.models.ResNet", "blocks": [2, 2, 2, 2], "widths": [8, 8, 8, 16]},
}


def network(folder: Path, option: str = "cnn", activation: str = "leaky_relu", bn: bool = True) -> Trained:
    """A network whose BatchNorm has seen images, loaded from a file of its weights."""
    made = {**NETWORKS[option], "activation": ACTIVATIONS[activation], "batch_norm": bn}
    model = build(OmegaConf.create(made))
    model.train()(torch.randn(32, 3, 32, 32))
    path = folder / f"{option}_{activation}_{bn}.pth"
    torch.save(model.state_dict(), path)
    return on_cpu(load(path, Said(activation=activation, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))))


def pixels(count: int = 7) -> Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


def exported(trained: Trained, folder: Path, *formats: Format, takes: Input = Input.UINT8) -> list[Exported]:
    return list(export(trained, formats, takes, folder, Images(pixels(16), "16 test images"), 1e-4, Said()))


def check(found: object, trained: Trained, images: Tensor) -> None:
    """The logits of uint8 images are those of a network."""
    torch.testing.assert_close(torch.as_tensor(found), trained.logits_of_pixels(images), atol=1e-5, rtol=0)


def onnx_logits(path: Path, images: Tensor) -> Any:
    """What onnxruntime makes of a file and of images."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return logits


def check_graph(path: Path, trained: Trained) -> None:
    """A graph of uint8 images computes a network's logits for batches of any size."""
    is_onnx = path.suffix == ".onnx"
    module = None if is_onnx else torch.export.load(path).module()
    for count in (1, 2, 7):
        images = pixels(count)
        check(onnx_logits(path, images) if module is None else module(images), trained, images)
