"""Residual networks with a stem for 32x32 images."""

from collections.abc import Sequence

from torch import Tensor, nn

from cifar_lab.models.layers import Activation, initialise, norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (arXiv:1512.03385, figure 5 left, shortcut option B).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions.
        stride: Stride of the first convolution and of the shortcut's projection.
        batch_norm: Normalise after each convolution; without it the convolutions have a bias.
        activation: Called twice, without arguments.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, batch_norm: bool, activation: Activation
    ) -> None:
        super().__init__()
        bias = not batch_norm
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)
        self.bn1 = norm(out_channels, batch_norm)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.bn2 = norm(out_channels, batch_norm)
        self.activation2 = activation()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)
            self.shortcut = nn.Sequential(projection, norm(out_channels, batch_norm))

    def forward(self, features: Tensor) -> Tensor:
        """Map features `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        residual = self.activation1(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        return self.activation2(residual + self.shortcut(features))


class ResNet(nn.Module):
    """Stages of basic blocks behind a 3x3 stem, then a global average and one linear layer.

    arXiv:1512.03385 with the stem that CIFAR-10 asks for: 3x3, stride 1, no max-pool. Four stages of two blocks
    are ResNet-18; the report's network has three, and so 14 weighted layers.

    Args:
        blocks: Number of basic blocks per stage.
        widths: Channels per stage; every stage but the first halves height and width.
        batch_norm: Normalise after each convolution; without it the convolutions have a bias.
        activation: Called once per layer, without arguments.
        num_classes: Number of logits.
        init: Initial weights, see `cifar_lab.models.layers.initialise`.

    Raises:
        ValueError: `blocks` and `widths` differ in length, or are empty.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        batch_norm: bool = True,
        activation: Activation = nn.SiLU,
        num_classes: int = 10,
        init: str = "default",
    ) -> None:
        super().__init__()
        if not blocks or len(blocks) != len(widths):
            raise ValueError(f"blocks={list(blocks)} and widths={list(widths)} must be of one length, at least 1")
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=not batch_norm)
        self.bn1 = norm(widths[0], batch_norm)
        self.activation1 = activation()
        self.num_stages = len(blocks)
        in_channels = widths[0]
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (count - 1)
            stage = nn.Sequential()
            for stride in strides:
                stage.append(BasicBlock(in_channels, width, stride, batch_norm, activation))
                in_channels = width
            self.add_module(f"layer{number}", stage)
        self.linear = nn.Linear(in_channels, num_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to logits `(N, num_classes)`."""
        features = self.activation1(self.bn1(self.conv1(images)))
        for number in range(1, self.num_stages + 1):
            features = self.get_submodule(f"layer{number}")(features)
        return self.linear(features.mean(dim=(2, 3)))
