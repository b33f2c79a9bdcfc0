"""A network with its normalisation, as one module."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab.export.kinds import Input


class Deployable(nn.Module):
    """Images as they are in, logits out.

    Args:
        network: Maps normalised float32 images `(N, 3, 32, 32)` to logits; in evaluation mode, on the CPU.
        mean: Per channel, subtracted from images from 0 to 1.
        std: Per channel, divided by.
        takes: uint8 images `(N, 32, 32, 3)`, or float32 ones `(N, 3, 32, 32)` from 0 to 1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], takes: Input) -> None:
        super().__init__()
        self.network = network
        self.takes = takes
        # One product and one sum, as the run's own batches were made: x * scale + shift = (x / 255 - mean) / std.
        channels = torch.tensor(std).view(3, 1, 1)
        self.register_buffer("scale", 1 / (255 * channels if takes is Input.UINT8 else channels))
        self.register_buffer("shift", -torch.tensor(mean).view(3, 1, 1) / channels)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits `(N, num_classes)`."""
        if self.takes is Input.UINT8:
            images = images.permute(0, 3, 1, 2).to(torch.float32)
        return self.network(images * self.scale + self.shift)


def as_taken(pixels: Tensor, takes: Input) -> Tensor:
    """uint8 images `(N, 32, 32, 3)` as a graph takes them."""
    return pixels if takes is Input.UINT8 else (pixels.permute(0, 3, 1, 2).to(torch.float32) / 255).contiguous()


def contract(takes: Input, num_classes: int) -> dict[str, Any]:
    """What goes in and what comes out, in plain values."""
    shape = ["batch", 32, 32, 3] if takes is Input.UINT8 else ["batch", 3, 32, 32]
    high = 255 if takes is Input.UINT8 else 1
    return {
        "input": {"name": "images", "dtype": _DTYPES[takes], "shape": shape, "range": [0, high], "colours": "RGB"},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", num_classes]},
    }


_DTYPES = {Input.UINT8: "uint8", Input.FLOAT: "float32"}
