"""Networks of torchvision and timm, designed for larger images, with stems for 32x32."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

_SIDE = 32  # of an image, in pixels
_OPTIONS: dict[str, dict[str, Any]] = {  # arguments of torchvision's networks, by prefix of their names
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "vit_": {"image_size": _SIDE},
}


class _Network(nn.Module):
    """A library's network, with `keep_resolution` if `small_stem`."""

    def __init__(self, network: nn.Module, small_stem: bool) -> None:
        super().__init__()
        self.network = network
        if small_stem:
            keep_resolution(network)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to logits `(N, num_classes)`."""
        return self.network(images)


class Torchvision(_Network):
    """A classification network of torchvision, with random weights and no auxiliary classifiers.

    Args:
        architecture: Name of the network, one of `torchvision.models.list_models(torchvision.models)`.
        small_stem: Apply `keep_resolution`.
        num_classes: Number of logits.

    Raises:
        ValueError: The library has no such network, or cannot build it.
    """

    def __init__(self, architecture: str = "resnet18", small_stem: bool = True, num_classes: int = 10) -> None:
        import torchvision

        _check_known(architecture, torchvision.models.list_models(module=torchvision.models), "torchvision")
        options = next((own for name, own in _OPTIONS.items() if architecture.startswith(name)), {})
        network = _made(torchvision.models.get_model, architecture, **options, num_classes=num_classes)
        super().__init__(network, small_stem)


class Timm(_Network):
    """A network of timm, with random weights, and built for 32x32 images if it needs an image size.

    Args:
        architecture: Name of the network, one of `timm.list_models()`.
        small_stem: Apply `keep_resolution`.
        num_classes: Number of logits.

    Raises:
        ValueError: The library has no such network, or cannot build it.
        ImportError: timm is not installed.
    """

    def __init__(self, architecture: str = "resnet18", small_stem: bool = True, num_classes: int = 10) -> None:
        import timm

        _check_known(architecture, timm.list_models(), "timm")
        try:
            network = timm.create_model(architecture, num_classes=num_classes, img_size=_SIDE)
        except TypeError:  # it accepts images of any size
            network = _made(timm.create_model, architecture, num_classes=num_classes)
        super().__init__(network, small_stem)


def keep_resolution(network: nn.Module) -> None:
    """Change the stem of a network, in place, to keep the resolution of its images.

    If the first convolution has stride 2 and a kernel larger than 2x2, it gets stride 1; a 7x7 kernel becomes 3x3. The
    max-pool after it, before the second convolution or named `maxpool`, is removed. This applies to ResNets, DenseNets,
    EfficientNets, MobileNets, RegNets and ShuffleNets. Other stems do not change: those of VGGs, which have stride 1,
    and those of transformers and ConvNeXts, which cut images into patches.
    """
    modules = dict(network.named_modules())
    names = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    first = modules[names[0]] if names else None
    if not isinstance(first, nn.Conv2d) or first.stride != (2, 2) or first.kernel_size <= (2, 2):
        return
    first.stride = (1, 1)
    if first.kernel_size == (7, 7) and type(first) is nn.Conv2d:
        small = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None)
        network.set_submodule(names[0], small)
    order = list(modules)
    in_front = order[: order.index(names[1])] if len(names) > 1 else order
    pools = [name for name in (*in_front, "maxpool") if isinstance(modules.get(name), nn.MaxPool2d)]
    for name in pools[:1]:
        network.set_submodule(name, nn.Identity())


def _check_known(architecture: str, known: Sequence[str], library: str) -> None:
    if architecture.partition(".")[0] not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"model.architecture={architecture}: {library} has no such network{hint}")


def _made(make: Callable[..., nn.Module], architecture: str, **options: Any) -> nn.Module:
    try:
        return make(architecture, **options)
    except Exception as error:  # networks for other inputs raise nearly anything
        raise ValueError(f"model.architecture={architecture} cannot be built for 32x32 images: {error}") from error
