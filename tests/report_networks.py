"""The published report's networks, reimplemented from its text; its weight files are state dicts of these."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class ReportCNN(nn.Module):
    def __init__(
        self, filters: Sequence[int] = (64, 128, 256), activation: Activation = nn.ReLU, bn: bool = True
    ) -> None:
        super().__init__()

        layers: list[nn.Module] = []
        for before, width in pairwise((3, *filters)):
            norm = nn.BatchNorm2d(width) if bn else nn.Identity()
            layers += [nn.Conv2d(before, width, 3, padding=1), norm, activation(), nn.MaxPool2d(2)]
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(
            nn.Linear(filters[-1] * 16, 512),
            activation(),
            nn.Dropout(0.5),
            nn.Linear(512, 256),
            activation(),
            nn.Dropout(0.5),
            nn.Linear(256, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.fc_layers(self.conv_layers(images).flatten(1))


class ReportBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(features)))
        return self.activation(self.bn2(self.conv2(out)) + self.shortcut(features))


class ReportResNet(nn.Module):
    def __init__(self, widths: Sequence[int] = (64, 128, 256), activation: Activation = nn.SiLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        for stage, width in enumerate(widths, start=1):
            first = ReportBlock(before, width, 1 if stage == 1 else 2, activation)
            self.add_module(f"layer{stage}", nn.Sequential(first, ReportBlock(width, width, 1, activation)))
            before = width
        self.linear = nn.Linear(before, 10)
        self.activation = activation()
        self.stages = len(widths)

    def forward(self, images: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(images)))
        for stage in range(1, self.stages + 1):
            out = self.get_submodule(f"layer{stage}")(out)
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))


class ReportVGG(nn.Module):
    """VGG-A; with `by_stage`, its light and dropout variants."""

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = ((64,), (128,), (256, 256), (512, 512), (512, 512)),
        hidden: int = 512,
        bn: bool = False,
        by_stage: bool = False,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        before, built = 3, []
        for widths in stages:
            layers: list[nn.Module] = []
            for width in widths:
                layers += [nn.Conv2d(before, width, 3, padding=1)]
                layers += [nn.BatchNorm2d(width)] if bn else []
                layers += [nn.ReLU()]
                before = width
            built.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        if by_stage:
            for number, stage in enumerate(built, start=1):
                self.add_module(f"stage{number}", stage)
        else:
            self.features = nn.Sequential(*(layer for stage in built for layer in stage))
        drop = [nn.Dropout(0.5)] if dropout else []
        inputs = before * (32 // 2 ** len(stages)) ** 2
        self.classifier = nn.Sequential(
            *drop,
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            *drop,
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        *stages, classifier = self.children()
        for stage in stages:
            images = stage(images)
        return classifier(images.flatten(1))
