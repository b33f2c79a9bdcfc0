"""A small network that reaches 94 % on CIFAR-10 in few epochs."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cifar_lab.models.layers import Activation, initialise


class _Group(nn.Module):
    """A convolution and a pool, then more convolutions, each with BatchNorm and activation."""

    def __init__(
        self,
        channels: Sequence[int],
        residual: bool,
        bn_momentum: float | None,
        scaled: bool,
        blur_pool: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.convs, self.norms, self.activations = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for in_channels, out_channels in pairwise(channels):
            self.convs.append(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bn_momentum is None))
            self.norms.append(_norm(out_channels, bn_momentum, scaled))
            self.activations.append(activation())
        self.pool = nn.Sequential(nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2)) if blur_pool else nn.MaxPool2d(2)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(N, in_channels, H, W)` to `(N, out_channels, H // 2, W // 2)`."""
        features = shortcut = self.activations[0](self.norms[0](self.pool(self.convs[0](features))))
        for number in range(1, len(self.convs)):
            features = self.norms[number](self.convs[number](features))
            if self.residual and number == len(self.convs) - 1:
                features = features + shortcut
            features = self.activations[number](features)
        return features


class SpeedCNN(nn.Module):
    """The network of airbench (arXiv:2404.00498, section 3; github.com/KellerJordan/cifar10-airbench).

    A 2x2 convolution that whitens patches, three groups of convolutions, a 3x3 max-pool, and a linear layer without
    bias and with scaled logits. Each group halves height and width. Departures from airbench94: the bias of the
    whitening convolution trains in all epochs, not only in the first three, and BatchNorm has PyTorch's eps.

    Args:
        widths: Channels of the three groups. airbench94 has (64, 256, 256), airbench96 (128, 384, 512).
        depth: Convolutions per group, 2 in airbench94 and 3 in airbench96.
        residual: Add the output of a group's first convolution to that of its last one, before the activation, as in
            airbench96.
        whitening: Freeze the first convolution at the filters computed by `fit_to`; False trains it like any other.
        batch_norm: Normalise after each convolution of the groups; without it they have a bias.
        bn_momentum: Weight of a batch in BatchNorm's running statistics.
        bn_scale: Whether BatchNorm's scale is trained; False leaves it at 1.
        blur_pool: Take 2x2 maxima at stride 1, then 2x2 means at stride 2, which aliases less and uses every pixel of
            odd sizes (arXiv:1904.11486, section 3.2, filter Rect-2). Otherwise 2x2 maxima at stride 2, as in airbench.
        activation: Called once per layer, without arguments.
        logit_scale: Factor of the logits.
        num_classes: Number of logits.
        init: Initial weights, see `cifar_lab.models.layers.initialise`.

    Raises:
        ValueError: `widths` does not hold three widths, or `depth` is less than 1.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 256, 256),
        depth: int = 2,
        residual: bool = False,
        whitening: bool = True,
        batch_norm: bool = True,
        bn_momentum: float = 0.4,
        bn_scale: bool = False,
        blur_pool: bool = False,
        activation: Activation = nn.GELU,
        logit_scale: float = 1 / 9,
        num_classes: int = 10,
        init: str = "identity",
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"widths={list(widths)} has {len(widths)} widths; three groups halve 31 to 3, so give 3")
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        self.whitening = whitening
        self.logit_scale = logit_scale
        self.whiten = nn.Conv2d(3, 24, 2)
        assert self.whiten.bias is not None
        self.activation = activation()
        momentum = bn_momentum if batch_norm else None
        self.groups = nn.Sequential(
            *(
                _Group([before, *[width] * depth], residual, momentum, bn_scale, blur_pool, activation)
                for before, width in zip((24, *widths), widths, strict=False)
            )
        )
        self.pool = nn.MaxPool2d(3)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        initialise(self, init)
        if whitening:
            self.whiten.weight.requires_grad_(False)
            nn.init.zeros_(self.whiten.bias)

    @torch.no_grad()
    def fit_to(self, images: Tensor) -> None:
        """Set the first convolution to whiten the 2x2 patches of images: uncorrelated outputs of variance 1.

        The filters are the eigenvectors of the patches' covariance, divided by the square roots of their eigenvalues
        plus 5e-4, and their negatives.

        Args:
            images: Normalised training images `(N, 3, H, W)`, float32.
        """
        if not self.whitening:
            return
        patches = nn.functional.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
        eigenvalues, eigenvectors = torch.linalg.eigh(torch.cov(patches.T))
        filters = (eigenvectors / (eigenvalues + 5e-4).sqrt()).T.flip(0).unflatten(1, (3, 2, 2))
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to logits `(N, num_classes)`."""
        features = self.groups(self.activation(self.whiten(images)))
        return self.head(self.pool(features).flatten(1)) * self.logit_scale


def _norm(channels: int, momentum: float | None, scaled: bool) -> nn.Module:
    if momentum is None:
        return nn.Identity()
    layer = nn.BatchNorm2d(channels, momentum=momentum)
    layer.weight.requires_grad_(scaled)
    return layer
