"""Test-time augmentation: logits averaged over views of an image."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("flip", "flip_translate")


def over_views(
    forward: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor, kind: str, below: float = 1.0
) -> Tensor:
    """Average logits over views of each image: `flip`, the image and its mirror image, or `flip_translate`.

    `flip_translate` weights the mean of `flip` by 1/2, and that for the image moved by one pixel up and left, and down
    and right, with reflected edges, by 1/4 each (`infer` of github.com/KellerJordan/cifar10-airbench;
    arXiv:2404.00498, section 3.5).

    Args:
        forward: Maps normalised images `(N, 3, H, W)` to logits `(N, num_classes)`.
        images: Normalised images.
        logits: Their logits without augmentation.
        kind: One of `KINDS`.
        below: Augment only images whose highest probability is below this; 1 augments all.
    """
    if below < 1:
        unsure = logits.softmax(1).amax(1) < below
        averaged = logits.clone()
        averaged[unsure] = over_views(forward, images[unsure], logits[unsure], kind)
        return averaged
    if not len(images):
        return logits
    flipped = (logits + forward(images.flip(3))) / 2
    if kind == "flip":
        return flipped
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    views = [padded[:, :, offset : offset + height, offset : offset + width] for offset in (0, 2)]
    moved = torch.stack([forward(view) + forward(view.flip(3)) for view in views]).mean(0) / 2
    return (flipped + moved) / 2
