"""Grad-CAM compared with its formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_lab.explain.gradcam import first_filters, grad_cam, map_layer
from cifar_lab.models import CNN, VGG, ResNet


def network() -> nn.Sequential:
    """Return a network whose linear layer weights the ReLU of two 4x4 maps; like a trained one, without gradients."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    return model.eval().requires_grad_(False)


def test_grad_cam_is_the_relu_of_maps_weighted_by_mean_gradients_and_keeps_the_network_unchanged() -> None:
    model = network()
    images, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    maps = F.conv2d(images, model[0].weight, model[0].bias, stride=2, padding=1)  # type: ignore[arg-type]
    # d logit / d A is the linear layer's weight where ReLU is active, and 0 elsewhere.
    weights = model[3].weight.unflatten(1, (2, 4, 4))[labels]  # type: ignore[operator]
    alphas = (weights * (maps > 0)).mean(dim=(2, 3))
    by_hand = (alphas[:, :, None, None] * maps).sum(1).clamp(min=0)
    assert by_hand.max() > 0
    before = [parameter.clone() for parameter in model.parameters()]
    heat = grad_cam(model, map_layer(model), images, labels)
    assert heat.shape == (5, 8, 8)
    expected = F.interpolate(by_hand[:, None], (8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(heat, expected)
    assert not images.requires_grad and not any(parameter.requires_grad for parameter in model.parameters())
    assert all(map(torch.equal, before, model.parameters()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("model", "name", "expected"),
    [
        (CNN((4, 4, 4)), None, "conv_layers.8"),
        (VGG([[4], [4, 4]], hidden=8), None, "features.5"),
        (ResNet((1, 1), (8, 8)), None, "layer2.0.conv2"),  # not the shortcut's projection, which comes later
        (ResNet((1, 1), (8, 8)), "layer1", "layer1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_grad_cam_uses_the_last_convolution_or_any_named_layer_with_maps(
    model: nn.Module, name: str | None, expected: str
) -> None:
    layer = map_layer(model.eval(), name)
    assert layer[0] == expected
    heat = grad_cam(model, layer, torch.randn(2, 3, 32, 32), torch.tensor([3, 7]))
    assert heat.shape == (2, 32, 32) and heat.min() >= 0


TWICE = nn.Conv2d(3, 3, 3, padding=1)
FLAT = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))


@pytest.mark.parametrize(
    ("model", "name", "facts"),
    [
        (network(), "features.9", "--layer features.9 .*0$"),
        (network(), "", "--layer .*0$"),
        (network(), "3", "--layer 3 .*0$"),
        (nn.Sequential(TWICE, TWICE, FLAT), "0", "0 .*2"),
        (FLAT, None, "convolution"),
        (FLAT, "1", "convolution"),
    ],
)
def test_a_layer_without_maps_gives_a_one_line_error(model: nn.Module, name: str | None, facts: str) -> None:
    with pytest.raises(ValueError, match=facts) as caught:
        grad_cam(model, map_layer(model, name), torch.randn(1, 3, 8, 8), torch.tensor([0]))
    assert len(str(caught.value).splitlines()) == 1


def test_first_filters_exist_only_for_a_first_convolution_on_colours() -> None:
    model = CNN((4, 5, 6))
    assert first_filters(model).shape == (4, 3, 3, 3)  # type: ignore[union-attr]
    assert first_filters(nn.Sequential(nn.Conv2d(1, 4, 3))) is None
    assert first_filters(nn.Linear(3, 3)) is None
