"""Grad-CAM (arXiv:1610.02391), computed by captum."""

from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab.machine.exit_codes import UsageError

_MOST_NAMED = 20  # layers in a message


def map_layer(model: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """Find the layer for Grad-CAM.

    Args:
        model: Any network.
        name: Key of `model.named_modules()`. Default: the last convolution larger than 1x1, because a 1x1 convolution
            of a shortcut only projects earlier features.

    Returns:
        Name and layer.

    Raises:
        ValueError: There is no layer with that name, or no convolution.
    """
    convolutions = {key: module for key, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if name is None:
        wide = [key for key, module in convolutions.items() if max(module.kernel_size) > 1] or list(convolutions)
        if not wide:
            raise UsageError("the network has no convolution for Grad-CAM; name a layer by --layer")
        return wide[-1], convolutions[wide[-1]]
    modules = dict(model.named_modules())
    if not name or name not in modules:
        raise UsageError(f"--layer {name} does not exist; {_named(list(convolutions))}")
    return name, modules[name]


def grad_cam(model: nn.Module, layer: tuple[str, nn.Module], images: Tensor, labels: Tensor) -> Tensor:
    """Compute Grad-CAM maps ReLU(sum_k alpha_k A_k), where alpha_k is the mean gradient of the logit over A_k.

    Args:
        model: Maps images to logits; in evaluation mode.
        layer: From `map_layer`; its outputs are A, `(N, K, h, w)`.
        images: Normalised, float32 `(N, 3, H, W)`, on the model's device.
        labels: int64 `(N,)`, the class whose logit is explained for each image.

    Returns:
        Non-negative float32 maps `(N, H, W)`, upsampled bilinearly from h x w.

    Raises:
        ValueError: captum is not installed, or the layer does not run exactly once with 4-D outputs.
    """
    try:
        import captum.attr
    except ImportError:
        raise UsageError("Grad-CAM needs captum: pip install 'cifar-lab[explain]'") from None
    name, module = layer
    _check_maps(model, name, module, images[:1])
    # The images require a gradient, because the parameters of a trained network do not.
    inputs = images.detach().clone().requires_grad_()
    maps = captum.attr.LayerGradCam(model, module).attribute(inputs, target=labels, relu_attributions=True)
    enlarged = captum.attr.LayerAttribution.interpolate(maps, tuple(images.shape[2:]), interpolate_mode="bilinear")
    return enlarged.detach()[:, 0]


def first_filters(model: nn.Module) -> Tensor | None:
    """Return the weights `(K, 3, h, w)` of the first convolution; None if its input is not red, green and blue."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach() if module.weight.shape[1] == 3 else None
    return None


def _check_maps(model: nn.Module, name: str, module: nn.Module, image: Tensor) -> None:
    seen: list[Any] = []
    with module.register_forward_hook(lambda _module, _inputs, output: seen.append(output)), torch.no_grad():
        model(image)
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or seen[0].ndim != 4:
        what = "has no maps" if len(seen) == 1 else f"is run {len(seen)} times for an image"
        convolutions = [key for key, part in model.named_modules() if isinstance(part, nn.Conv2d)]
        raise UsageError(f"--layer {name} {what}; {_named(convolutions)}")


def _named(names: list[str]) -> str:
    if not names:
        return "the network has no convolution"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"its convolutions are {', '.join(names[:_MOST_NAMED])}{more}"
