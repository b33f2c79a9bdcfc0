"""The report's small convolutional network."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from cifar_lab.models.layers import Activation, conv3x3, initialise, norm, pooled

LEAKY_RELU = partial(nn.LeakyReLU, 0.1)


class CNN(nn.Module):
    """Three blocks of convolution, BatchNorm, activation and 2x2 max-pool, then three linear layers.

    Filters (64, 128, 256) are the report's F1, (128, 256, 512) its F2.

    Args:
        filters: Output channels of the three convolutions.
        dropout: Probability of dropping a unit after each of the two hidden linear layers.
        batch_norm: Normalise between each convolution and its activation.
        activation: Called once per layer, without arguments.
        num_classes: Number of logits.
        init: Initial weights, see `cifar_lab.models.layers.initialise`.

    Raises:
        ValueError: `filters` does not hold three widths.
    """

    def __init__(
        self,
        filters: Sequence[int] = (64, 128, 256),
        dropout: float = 0.5,
        batch_norm: bool = True,
        activation: Activation = LEAKY_RELU,
        num_classes: int = 10,
        init: str = "default",
    ) -> None:
        super().__init__()
        if len(filters) != 3:
            raise ValueError(f"filters={list(filters)} has {len(filters)} widths; three pools halve 32 to 4, so give 3")
        layers: list[nn.Module] = []
        for in_channels, out_channels in zip((3, *filters), filters, strict=False):
            layers += [conv3x3(in_channels, out_channels), norm(out_channels, batch_norm), *pooled(activation())]
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(
            nn.Linear(filters[-1] * 4 * 4, 512),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(512, 256),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, 32, 32)` to logits `(N, num_classes)`."""
        return self.fc_layers(self.conv_layers(images).flatten(1))
