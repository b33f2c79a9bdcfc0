"""Logits over views of an image are the weighted mean of the views' logits."""

import torch
from torch import Tensor, nn

from cifar_lab.data.views import over_views


def network() -> nn.Module:
    """Return a network that is sensitive to every shift and mirroring."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 7, 5)).requires_grad_(False)


def shift(image: Tensor, by: int) -> Tensor:
    """Shift an image `(3, H, W)` along both axes by 1 or -1 pixels; pixels beyond the edge are mirrored."""
    height, width = image.shape[1:]

    def source(place: int, length: int) -> int:
        at = place - by
        return -at if at < 0 else 2 * (length - 1) - at if at >= length else at

    rows, columns = ([source(place, length) for place in range(length)] for length in (height, width))
    return image[:, rows][:, :, columns]


def test_views_are_weighted_as_in_airbench() -> None:
    forward, images = network(), torch.randn(6, 3, 8, 9)
    logits = forward(images)
    for kind, weights in (("flip", {0: 1.0}), ("flip_translate", {0: 0.5, 1: 0.25, -1: 0.25})):
        expected = torch.zeros(6, 5)
        for by, weight in weights.items():
            views = torch.stack([shift(image, by) if by else image for image in images])
            expected += weight * (forward(views) + forward(views.flip(3))) / 2
        torch.testing.assert_close(over_views(forward, images, logits, kind), expected)


def test_only_uncertain_images_get_new_logits() -> None:
    forward, images = network(), torch.randn(40, 3, 8, 9)
    logits = 8 * forward(images)
    seen = []

    def counting(views: Tensor) -> Tensor:
        seen.append(len(views))
        return 8 * forward(views)

    unsure = logits.softmax(1).amax(1) < 0.7
    found = over_views(counting, images, logits, "flip_translate", below=0.7)
    assert 0 < unsure.sum() < 40 and seen == [int(unsure.sum())] * 5
    assert torch.equal(found[~unsure], logits[~unsure])
    expected = over_views(lambda views: 8 * forward(views), images, logits, "flip_translate")
    torch.testing.assert_close(found[unsure], expected[unsure])
    assert torch.equal(over_views(counting, images, logits, "flip", below=0.0), logits)
    assert len(over_views(counting, images[:0], logits[:0], "flip")) == 0
