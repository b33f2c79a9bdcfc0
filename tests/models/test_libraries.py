"""Networks of torchvision and timm on 32x32 images."""

import importlib.util

import pytest
import torch
from torch import nn

from cifar_lab.models import ResNet, Timm, Torchvision
from tests.conftest import TINY, Lab, holds, refusal

WORDS = [word for word in TINY if not word.startswith("model.")]
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def sides(network: nn.Module) -> list[int]:
    """Return each convolution's output height for images of 32 pixels, in the order of computation."""
    found: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: found.append(output.shape[2]))
    network.eval()(torch.zeros(2, 3, 32, 32))
    return found


def test_a_librarys_resnet_gets_our_stem() -> None:
    theirs, ours = Torchvision("resnet18"), ResNet()
    assert sum(weight.numel() for weight in theirs.parameters()) == sum(weight.numel() for weight in ours.parameters())
    assert sides(theirs) == sides(ours)
    assert sides(Torchvision("resnet18", small_stem=False))[:2] == [16, 8]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("densenet121", [32, 32]),
        ("mobilenet_v2", [32, 32]),
        ("efficientnet_b0", [32, 32]),
        ("shufflenet_v2_x0_5", [32, 16]),
        ("regnet_y_400mf", [32, 16]),
        ("squeezenet1_1", [30, 30]),
        ("googlenet", [32, 32]),
        ("vgg11_bn", [32, 16]),
        ("convnext_tiny", [8, 8]),
        ("vit_b_16", [2]),
        ("swin_t", [8]),
    ],
)
def test_stems_with_stride_2_keep_the_resolution_and_others_stay_unchanged(name: str, first: list[int]) -> None:
    network = Torchvision(name)
    assert sides(network)[: len(first)] == first
    assert network.train()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@needs_timm
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet18", [32, 32]),
        ("resnet18d", [32, 32, 32, 32]),
        ("mobilenetv3_small_050", [32, 16]),
        ("vit_tiny_patch16_224", [2]),
        ("convnext_atto", [8, 8]),
    ],
)
def test_timms_stems_are_adapted_as_well(name: str, first: list[int]) -> None:
    network = Timm(name)
    assert sides(network)[: len(first)] == first
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("model", ["torchvision", pytest.param("timm", marks=needs_timm)])
def test_a_librarys_network_trains_in_a_run(model: str, lab: Lab) -> None:
    name = {"torchvision": "mobilenet_v2", "timm": "mobilenetv3_small_050"}[model]
    outcome = lab(*WORDS, f"model={model}", f"model.architecture={name}", "debug=fast")
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["model.architecture=resnet81"], ["model.architecture=resnet81", "torchvision", "resnet18"]),
        (["model.architecture=alexnet"], ["Torchvision", "(N, 3, 32, 32)"]),
        (["model.architecture=maxvit_t"], ["Torchvision", "(N, 3, 32, 32)"]),
        (["bn=false"], ["bn", "leave"]),
        (["activation.negative_slope=0.2"], ["activation", "leave"]),
    ],
)
def test_a_network_that_a_library_cannot_build_is_refused_in_one_line(
    words: list[str], facts: list[str], lab: Lab
) -> None:
    outcome = lab(*WORDS, "model=torchvision", *words)
    assert outcome.runs == []
    refusal(outcome, *facts)


@needs_timm
def test_an_unknown_network_of_timm_is_refused_with_similar_names(lab: Lab) -> None:
    refusal(lab(*WORDS, "model=timm", "model.architecture=resnet181"), "timm has no such network", "resnet18")


def test_a_network_of_timm_without_timm_is_refused_before_anything_is_created(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    outcome = lab(*WORDS, "model=timm")
    holds(refusal(outcome), "pip install 'cifar-lab[timm]'")
    assert outcome.runs == []
