"""Augmentations that mix images and labels within a batch, with one draw per batch as in the papers' own code."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from cifar_lab.data.augment import flip_crop


class MixUp:
    """Crop and flip like `flip_crop`, then mix each image and label with its neighbour's (arXiv:1710.09412).

    The mixing weight of the batch is drawn from Beta(alpha, alpha). Departure: an image's partner is the previous image
    in the batch, which is shuffled, instead of one from a random permutation.

    Args:
        alpha: Parameter of the Beta distribution; the paper uses 1, the uniform distribution, for CIFAR-10.
        padding: Black pixels on each side before the crop.

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
        """Mix normalised images `(B, 3, H, W)`, and int64 labels `(B,)` into probabilities `(B, num_classes)`."""
        transform = self._transform(alpha=self.alpha, num_classes=num_classes)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global generator
            torch.set_rng_state(generator.get_state())
            images, labels = transform(images, labels)
            generator.set_state(torch.get_rng_state())
        return images, labels


class CutMix(MixUp):
    """Crop and flip, then replace a rectangle by the neighbour's and mix labels by area (arXiv:1905.04899).

    The share of the image that is kept is drawn from Beta(alpha, alpha); 1 makes it uniform, as in the paper. The
    rectangle's centre is uniform, and a batch has one rectangle. Arguments and errors are those of `MixUp`. Departures:
    partners are those of `MixUp`, and every batch is mixed; the paper's code mixes half of the batches of CIFAR-100.
    """

    _transform = v2.CutMix
