"""Augmentations that mix the images of a batch and their labels, by one draw per batch as in the papers' own code."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from cifar_lab.data.augment import flip_crop


class MixUp:
    """Crop and flip as `flip_crop` does, then mix each image and label with its neighbour's (arXiv:1710.09412).

    The weight of the batch is drawn from Beta(alpha, alpha). Departure: the partner is the image before in the batch,
    which is shuffled, not that of a random permutation.

    Args:
        alpha: Of the Beta distribution; 1, uniform, is the paper's for CIFAR-10.
        padding: Pixels of black on each side before the crop.

    Raises:
        ValueError: `alpha` is not positive.
    """

    _transform: type[v2.MixUp] | type[v2.CutMix] = v2.MixUp

    def __init__(self, alpha: float = 1.0, padding: int = 4) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha={alpha} must be positive")
        self.alpha = alpha
        self.padding = padding

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip uint8 images `(B, H, W, 3)`."""
        return flip_crop(images, generator, self.padding)

    def mix(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix normalised images `(B, 3, H, W)`, and int64 labels `(B,)` to probabilities `(B, num_classes)`."""
        transform = self._transform(alpha=self.alpha, num_classes=num_classes)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global generator
            torch.set_rng_state(generator.get_state())
            images, labels = transform(images, labels)
            generator.set_state(torch.get_rng_state())
        return images, labels


class CutMix(MixUp):
    """Crop and flip, then replace a rectangle by the neighbour's, the labels mixed by area (arXiv:1905.04899).

    The share of the image that stays is drawn from Beta(alpha, alpha), uniform as in the paper with 1; the rectangle's
    centre is uniform; one rectangle per batch. Arguments and errors are `MixUp`'s. Departures: the partner is
    `MixUp`'s, and every batch is mixed, where the paper's code mixes half of those of CIFAR-100.
    """

    _transform = v2.CutMix
