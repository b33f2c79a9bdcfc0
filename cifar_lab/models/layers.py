"""Layers and initial weights shared by the architectures."""

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution with a bias, and with padding 1, which keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def norm(num_features: int, batch_norm: bool) -> nn.Module:
    """Return BatchNorm (arXiv:1502.03167), or an Identity, which keeps the names of later layers the same."""
    return nn.BatchNorm2d(num_features) if batch_norm else nn.Identity()


def pooled(activation: nn.Module) -> list[nn.Module]:
    """Return an activation followed by a 2x2 max-pool.

    A monotone activation commutes with max-pooling, so we pool first and apply it to a quarter of the values. If
    rounding makes values equal, the gradient may go to a different one of them.
    """
    pool = nn.MaxPool2d(2)
    return [pool, activation] if _is_monotone(activation) else [activation, pool]


def _is_monotone(activation: nn.Module) -> bool:
    match activation:
        case nn.ReLU():
            return True
        case nn.LeakyReLU():
            return activation.negative_slope >= 0
        case nn.ELU():
            return activation.alpha >= 0
    return False


def initialise(model: nn.Module, init: str) -> None:
    """Initialise the weights of every convolution and linear layer, in place.

    Args:
        model: Any network.
        init: `default` keeps PyTorch's own; `xavier` is Xavier-normal with gain 1 (Glorot and Bengio 2010,
            equation 12); `he` is He-normal for ReLU over the fan-in (arXiv:1502.01852, equation 10). Both set
            biases to zero. `identity` keeps PyTorch's own, except that the first output channels of each convolution
            copy its input channels (arXiv:2404.00498, section 3.3).

    Raises:
        ValueError: `init` is not one of the four.
    """
    if init == "identity":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                nn.init.dirac_(module.weight[: module.in_channels])
        return
    draw = {"default": None, "xavier": nn.init.xavier_normal_, "he": _he_normal, "identity": None}
    if init not in draw:
        raise ValueError(f"init={init!r} is unknown; one of {', '.join(draw)}")
    draw_weight = draw[init]
    if draw_weight is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw_weight(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _he_normal(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
