"""The report's published weight files, under its naming, load as the networks that they hold."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cifar_lab.trained import Overrides, load
from tests.report_networks import ReportCNN, ReportResNet, ReportVGG

LEAKY = partial(nn.LeakyReLU, 0.1)
LIGHT = ((16,), (32,))
SMALL = ((4,), (8,), (8, 8), (12, 12), (12, 12))
HALVES = (0.5, 0.5, 0.5)


def published(model: nn.Module, path: Path) -> nn.Module:
    """Save a network as the report does, with BatchNorm statistics that are not the initial ones."""
    model.train()(torch.rand(16, 3, 32, 32))
    torch.save(model.state_dict(), path)
    return model.eval()


def normalised(pixels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    images = pixels.permute(0, 3, 1, 2) / 255
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(
    ("name", "model", "overrides", "architecture", "mean"),
    [
        (
            "best_model_LeakyReLU_CrossEntropy_Adam_CosineAnnealingLR_8945.pth",
            ReportCNN((8, 12, 16), LEAKY),
            Overrides(),
            "cnn filters=[8,12,16] bn=true",
            None,
        ),
        (
            "best_model_eLU_CrossEntropy_Adam_CosineAnnealingLR_8745.pth",
            ReportCNN((8, 8, 8), nn.ELU, bn=False),
            Overrides(),
            "cnn filters=[8,8,8] bn=false",
            None,
        ),
        (
            "best_model_9153.pth",
            ReportCNN((8, 8, 8), partial(nn.LeakyReLU, 0.05)),
            Overrides(),
            "cnn filters=[8,8,8]",
            None,
        ),
        ("best_model_resnet_adamw_9522.pth", ReportResNet((8, 8, 12)), Overrides(), "resnet14 blocks=[2,2,2]", HALVES),
        ("a.pth", ReportResNet((8, 8, 8, 8), nn.GELU), Overrides(activation="gelu"), "resnet18", HALVES),
        (
            "vgg.pth",
            ReportVGG(SMALL, 16),
            Overrides(),
            "vgg_a stages=[[4],[8],[8,8],[12,12],[12,12]] hidden=16",
            HALVES,
        ),
        ("vgg_bn.pth", ReportVGG(SMALL, 16, bn=True), Overrides(), "bn=true", HALVES),
        ("light.pth", ReportVGG(LIGHT, 128, by_stage=True), Overrides(), "vgg_a_light stages=[[16],[32]]", HALVES),
        ("drop.pth", ReportVGG(SMALL, 8, by_stage=True, dropout=True), Overrides(), "vgg_a_dropout", HALVES),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".pth") else "",
)
def test_a_published_file_gives_the_logits_of_the_reports_network(
    tmp_path: Path, name: str, model: nn.Module, overrides: Overrides, architecture: str, mean: tuple[float, ...] | None
) -> None:
    published(model, tmp_path / name)
    trained = load(tmp_path / name, overrides)
    pixels = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    cifar10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    with torch.no_grad():
        expected = model(normalised(pixels, *(cifar10 if mean is None else (mean, mean))))
    torch.testing.assert_close(trained.logits_of_pixels(pixels), expected)
    assert architecture in trained.architecture
    assert list(trained.classes)[:2] == ["airplane", "automobile"]


def test_a_file_of_averaged_weights_loads_without_its_prefix(tmp_path: Path) -> None:
    averaged = AveragedModel(ReportCNN((4, 4, 4), partial(nn.LeakyReLU, 0.05)))
    torch.save(averaged.state_dict(), tmp_path / "best_model_swa_8517.pth")
    trained = load(tmp_path / "best_model_swa_8517.pth")
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(trained.logits(images), averaged.module.eval()(images).detach())


def test_assumptions_are_stated_and_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "best_model_LeakyReLU_CrossEntropy_Adam_StepLR_8842.pth"
    published(ReportCNN((4, 4, 4), partial(nn.LeakyReLU, 0.3)), path)
    assumed = "\n".join(load(path).assumed)
    for fact in ("0.1", "--negative-slope", "0.4914"):
        assert fact in assumed
    overrides = load(path, Overrides(negative_slope=0.3, mean=HALVES, std=HALVES))
    assert not overrides.assumed
    assert overrides.making["activation"]["negative_slope"] == 0.3
    assert tuple(overrides.mean) == HALVES


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        ({"bn": True}, r"cnn .*bn=false.* bn=true"),
        ({"model": "vgg_a"}, r"cnn .* vgg_a$"),
        ({"activation": "tanh"}, "--activation tanh .*elu, gelu"),
        ({"negative_slope": 0.1}, "--negative-slope .*leaky_relu"),
        ({"mean": (0.5,)}, r"--mean .*\b1$"),
        ({"std": (0.5, 0.5, 0.0)}, r"--std 0\.5,0\.5,0\.0"),
    ],
)
def test_wrong_and_impossible_overrides_are_refused(tmp_path: Path, overrides: dict[str, Any], facts: str) -> None:
    path = tmp_path / "best_model_ReLU_x.pth"
    published(ReportCNN((4, 4, 4), bn=False), path)
    with pytest.raises(ValueError, match=facts):
        load(path, Overrides(**overrides))
    assert load(path, Overrides(model="cnn", bn=False)).architecture.startswith("cnn")


LARGER = {**ReportCNN((4, 4, 4)).state_dict(), "fc_layers.0.weight": torch.zeros(1).expand(512, 64)}


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (nn.Linear(2, 2).state_dict(), r"\(weight, bias, "),
        ({"weight": "words"}, r"\bweight\b"),
        ({1: torch.zeros(1)}, r"\b1$"),
        ({"conv_layers.0.weight": torch.tensor(1.0)}, r"conv_layers\.0\.weight"),
        (LARGER, r"fc_layers\.0\.weight"),
        (b"no zip", ""),
        (None, ""),
    ],
    ids=["another network", "words", "numbers for names", "no shapes", "larger than its file", "damaged", "missing"],
)
def test_a_file_without_a_networks_weights_gives_a_one_line_error(tmp_path: Path, content: object, facts: str) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"x\.pth .*{facts}") as error:
        load(path)
    assert "\n" not in str(error.value)
