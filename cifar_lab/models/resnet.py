"""Residual networks with a stem for 32x32 images."""

from collections.abc import Sequence

from torch import Tensor, nn

from cifar_lab.models.layers import Activation, initialise, norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv:1512.03385, figure 5 left).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions.
        stride: Stride of the first convolution and of the shortcut.
        batch_norm: Normalise after each convolution; without it the convolutions have a bias.
        activation: Called twice, without arguments.
        dropout: Probability of dropping an input of the second convolution.
        shortcut: Used where the shapes differ: `projection`, a 1x1 convolution (the paper's option B), or `padding`,
            the input at every `stride`-th pixel, followed by channels of zeros (option A).
    """

    preactivation = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        batch_norm: bool,
        activation: Activation,
        dropout: float = 0.0,
        shortcut: str = "projection",
    ) -> None:
        super().__init__()
        bias = not batch_norm
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)
        self.bn1 = norm(in_channels if self.preactivation else out_channels, batch_norm)
        self.activation1 = activation()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.bn2 = norm(out_channels, batch_norm)
        self.activation2 = activation()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            if shortcut == "padding":
                self.shortcut = nn.Sequential(_Padding(stride, out_channels - in_channels))
            else:
                projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)
                after = () if self.preactivation else (norm(out_channels, batch_norm),)
                self.shortcut = nn.Sequential(projection, *after)

    def forward(self, features: Tensor) -> Tensor:
        """Map features `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        residual = self.activation1(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(self.dropout(residual)))
        return self.activation2(residual + self.shortcut(features))


class _Padding(nn.Module):
    """Takes every `stride`-th pixel and appends `channels` channels of zeros."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


class PreActBlock(BasicBlock):
    """A basic block with normalisation and activation before each convolution (arXiv:1603.05027, figure 4 e).

    A projection takes the activated input and has no BatchNorm. Dropout before the second convolution follows
    arXiv:1605.07146, section 2.4. `ResNet` already activates the input of its first block.
    """

    preactivation = True

    def forward(self, features: Tensor) -> Tensor:
        """Map features `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        activated = self.activation1(self.bn1(features))
        residual = self.activation2(self.bn2(self.conv1(activated)))
        residual = self.conv2(self.dropout(residual))
        return residual + (self.shortcut(activated) if len(self.shortcut) else features)


class ResNet(nn.Module):
    """A 3x3 stem, stages of basic blocks, global average pooling and one linear layer.

    arXiv:1512.03385 with a stem for CIFAR-10: 3x3, stride 1, no max-pool. Four stages of two blocks are ResNet-18; the
    report's network has three stages, and thus 14 weighted layers. Three stages of three blocks with 16, 32 and 64
    channels and padding shortcuts are the paper's ResNet-20 for CIFAR-10 (section 4.2).

    Args:
        blocks: Number of basic blocks per stage.
        widths: Channels per stage; every stage but the first halves height and width.
        stem: Channels of the stem; None for those of the first stage.
        preactivation: Normalise and activate before each convolution, and once after the last block
            (arXiv:1603.05027), as in wide residual networks (arXiv:1605.07146).
        shortcut: Used where shapes differ: `projection` or `padding`, see `BasicBlock`.
        block_dropout: Probability of dropping an input of each block's second convolution.
        batch_norm: Normalise after each convolution; without it the convolutions have a bias.
        activation: Called once per layer, without arguments.
        num_classes: Number of logits.
        init: Initial weights, see `cifar_lab.models.layers.initialise`.

    Raises:
        ValueError: `blocks` and `widths` differ in length, or are empty, or `padding` would have to remove channels.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int | None = None,
        preactivation: bool = False,
        shortcut: str = "projection",
        block_dropout: float = 0.0,
        batch_norm: bool = True,
        activation: Activation = nn.SiLU,
        num_classes: int = 10,
        init: str = "default",
    ) -> None:
        super().__init__()
        if not blocks or len(blocks) != len(widths):
            raise ValueError(f"blocks={list(blocks)} and widths={list(widths)} must have the same length, at least 1")
        in_channels = stem or widths[0]
        if shortcut == "padding" and sorted([in_channels, *widths]) != [in_channels, *widths]:
            raise ValueError(f"shortcut=padding cannot remove channels; widths={list(widths)} must not decrease")
        self.conv1 = nn.Conv2d(3, in_channels, 3, padding=1, bias=not batch_norm)
        self.bn1 = norm(in_channels, batch_norm)
        self.activation1 = activation()
        self.num_stages = len(blocks)
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = nn.Sequential()
            for place in range(count):
                stride = 2 if number > 1 and place == 0 else 1
                block = (PreActBlock if preactivation else BasicBlock)(
                    in_channels, width, stride, batch_norm, activation, block_dropout, shortcut
                )
                if preactivation and number == 1 and place == 0:  # the stem has activated its input
                    block.bn1 = block.activation1 = nn.Identity()
                stage.append(block)
                in_channels = width
            self.add_module(f"layer{number}", stage)
        self.last = nn.Sequential(norm(in_channels, batch_norm), activation()) if preactivation else nn.Sequential()
        self.linear = nn.Linear(in_channels, num_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to logits `(N, num_classes)`."""
        features = self.activation1(self.bn1(self.conv1(images)))
        for number in range(1, self.num_stages + 1):
            features = self.get_submodule(f"layer{number}")(features)
        return self.linear(self.last(features).mean(dim=(2, 3)))
