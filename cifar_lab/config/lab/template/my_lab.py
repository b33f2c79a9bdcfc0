"""My own components. Each has an option file in my_conf/."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PolyLoss(nn.Module):
    """Poly-1 loss (arXiv:2204.12511): cross-entropy, -log p for the label's probability p, plus epsilon * (1 - p)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits `(N, classes)` and labels `(N,)` to the mean loss over the batch."""
        log_p = torch.log_softmax(logits, dim=1).gather(1, labels[:, None])
        return (self.epsilon * (1 - log_p.exp()) - log_p).mean()


class Separable(nn.Sequential):
    """Depthwise 3x3 convolutions, each followed by a 1x1 convolution (arXiv:1704.04861), then a linear layer."""

    def __init__(self, widths: list[int], activation: Callable[[], nn.Module], num_classes: int) -> None:
        layers: list[nn.Module] = []
        for before, width in zip([3, *widths], widths, strict=False):
            depthwise = nn.Conv2d(before, before, 3, stride=2, padding=1, groups=before)
            layers += [depthwise, nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), activation()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))
