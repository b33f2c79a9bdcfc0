"""VGG networks: configuration A, the report's two variants of it, and VGG-16."""

from collections.abc import Sequence

from torch import Tensor, nn

from cifar_lab.models.layers import Activation, conv3x3, initialise, pooled


class VGG(nn.Module):
    """VGG (arXiv:1409.1556, table 1; configuration A by default) with a head sized for 32x32 inputs.

    Departures from the paper: hidden layers have 512 units instead of 4,096, or there are none, and there is no dropout
    by default. Convolutions keep their bias before BatchNorm, as in the report.

    Args:
        stages: Convolution widths per stage; each stage ends in a 2x2 max-pool.
        hidden: Width of the two hidden linear layers; with None, a single linear layer computes the logits.
        dropout: Probability of dropping an input of each hidden linear layer; None builds no dropout layer.
        batch_norm: Normalise between each convolution and its activation.
        activation: Called once per layer, without arguments.
        by_stage: Name the stages `stage1`, `stage2`, ... like the report's light and dropout variants, instead of one
            `features` sequence.
        num_classes: Number of logits.
        init: Initial weights, see `cifar_lab.models.layers.initialise`.

    Raises:
        ValueError: There are no stages, more than five (32 pixels can be halved five times), or a stage is empty.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = ((64,), (128,), (256, 256), (512, 512), (512, 512)),
        hidden: int | None = 512,
        dropout: float | None = None,
        batch_norm: bool = False,
        activation: Activation = nn.ReLU,
        by_stage: bool = False,
        num_classes: int = 10,
        init: str = "default",
    ) -> None:
        super().__init__()
        if not 1 <= len(stages) <= 5:
            raise ValueError(f"stages={stages} has {len(stages)} stages; 32 pixels can be halved one to five times")
        if not all(stages):
            raise ValueError(f"stages={stages} has a stage without a convolution")
        in_channels = 3
        built: list[nn.Sequential] = []
        for widths in stages:
            layers: list[nn.Module] = []
            for out_channels in widths:
                layers.append(conv3x3(in_channels, out_channels))
                if batch_norm:  # not `norm`: an Identity would shift the indices in the names of published weights
                    layers.append(nn.BatchNorm2d(out_channels))
                layers.append(activation())
                in_channels = out_channels
            built.append(nn.Sequential(*layers[:-1], *pooled(layers[-1])))
        if by_stage:
            for number, stage in enumerate(built, start=1):
                self.add_module(f"stage{number}", stage)
        else:
            self.features = nn.Sequential(*(layer for stage in built for layer in stage))
        side = 32 // 2 ** len(stages)
        features = in_channels * side * side
        layers = []
        for width in [] if hidden is None else [hidden, hidden]:
            layers += [*_dropout(dropout), nn.Linear(features, width), activation()]
            features = width
        self.classifier = nn.Sequential(*layers, nn.Linear(features, num_classes))
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to logits `(N, num_classes)`."""
        *stages, classifier = self.children()
        for stage in stages:
            images = stage(images)
        return classifier(images.flatten(1))


def _dropout(probability: float | None) -> list[nn.Module]:
    return [] if probability is None else [nn.Dropout(probability)]
