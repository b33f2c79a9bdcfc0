"""Synthetic images of stripes, lattices and shapes, for machines where CIFAR-10 cannot be downloaded.

They have CIFAR-10's format but none of its content. Never report a result on them as a CIFAR-10 result.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cifar_lab.data.images import NUM_CLASSES, LabelledImages, keyed_generator

_SIDE = 32
_CHUNK = 1000  # images at a time: each float32 copy of them takes 12 MB
_STREAM = int.from_bytes(b"synthetic")  # separates the draws from those of a split or an epoch with the same seed


def _wave(phase: Tensor) -> Tensor:
    return torch.cos(2 * math.pi * phase)


def _inside(distance: Tensor) -> Tensor:
    """Render a shape with edges about one pixel wide from the signed distance to its outline, positive inside."""
    return torch.tanh(8 * distance)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    bar = torch.minimum(0.35 - u.abs(), 1.3 - v.abs())
    return _inside(torch.maximum(bar, torch.minimum(0.35 - v.abs(), 1.3 - u.abs())))


# Patterns with values from -1 to 1 over coordinates in units of the wavelength or radius; the index is the label.
# Mirroring u maps every family to itself (both diagonals are equally likely), so flips keep the label.
_FAMILIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "horizontal stripes": lambda u, v: _wave(v),
    "vertical stripes": lambda u, v: _wave(u),
    "diagonal stripes": lambda u, v: _wave((u + v) * math.sqrt(0.5)),
    "checkerboard": lambda u, v: _inside(0.5 * _wave(u / 1.4) * _wave(v / 1.4)),
    "dots": lambda u, v: _inside(0.3 * (_wave(u) + _wave(v) - 0.7)),
    "concentric rings": lambda u, v: _wave(torch.hypot(u, v)),
    "disc": lambda u, v: _inside(1.1 - torch.hypot(u, v)),
    "square": lambda u, v: _inside(1.1 - torch.maximum(u.abs(), v.abs())),
    "triangle": lambda u, v: _inside(torch.minimum(1 - v, 0.6 + 0.45 * v - 0.9 * u.abs())),
    "cross": _cross,
}

CLASSES = tuple(_FAMILIES)


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=generator)


def _layer(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw each label's family with random position, size, tilt and colour: float32 `(N, 32, 32, 3)` in [-1, 1]."""
    count = len(labels)
    centre_x, centre_y = _uniform(-4, 4, (2, count, 1, 1), generator)
    size = _uniform(6, 9, (count, 1, 1), generator)
    tilt = _uniform(-0.2, 0.2, (count, 1, 1), generator)
    mirror, polarity = (torch.randint(2, (2, count, 1, 1), generator=generator) * 2 - 1).unbind()
    axis = torch.arange(_SIDE) - (_SIDE - 1) / 2
    x, y = (axis - centre_x) * mirror, axis[:, None] - centre_y
    u, v = (tilt.cos() * x + tilt.sin() * y) / size, (tilt.cos() * y - tilt.sin() * x) / size
    field = torch.empty(count, _SIDE, _SIDE)
    for label, family in enumerate(_FAMILIES.values()):
        members = (labels == label).nonzero()[:, 0]
        field[members] = family(u[members], v[members])
    # Light on dark is as likely as dark on light, so every class has the same mean image and a linear model fails.
    # The 1.5 shifts colours towards grey, so that a pattern differs from its background in brightness more than in hue.
    colour = torch.nn.functional.normalize(torch.randn(count, 1, 1, 3, generator=generator) + 1.5, dim=-1)
    return (field * polarity)[..., None] * colour


def _draw(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uint8 images `(N, 32, 32, 3)`: the label's layer, a fainter one of any class and noise, on one colour."""
    count = len(labels)
    distractors = torch.randint(NUM_CLASSES, (count,), generator=generator)
    # The three strengths, in grey levels or as a share, were tuned so that the CNN has a few percent left to gain.
    contrast = _uniform(40, 100, (count, 1, 1, 1), generator)
    images = _layer(labels, generator).mul_(contrast)
    images += _layer(distractors, generator).mul_(contrast * _uniform(0, 0.65, (count, 1, 1, 1), generator))
    images += _uniform(80, 175, (count, 1, 1, 3), generator)
    images += torch.randn(images.shape, generator=generator).mul_(20)
    return images.round_().clamp_(0, 255).to(torch.uint8)


def _split(count: int, generator: torch.Generator) -> LabelledImages:
    labels = torch.randperm(count, generator=generator) % NUM_CLASSES
    return LabelledImages(torch.cat([_draw(chunk, generator) for chunk in torch.split(labels, _CHUNK)]), labels)


def generate(num_train: int, num_test: int, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """Draw a training and a test set of ten classes, independent of each other and of the global random state.

    Never report a result on them as CIFAR-10. Measured on 10,000 training and 2,000 test images, data and model
    seeds 0, 1 and 2: multinomial logistic regression on the pixels (Adam, 20 epochs) reaches 12.8 to 13.7 % test
    accuracy, after fitting 58 to 59 % of the training images; `cifar_lab.models.CNN` with LeakyReLU(0.1), trained for
    three epochs (Adam, cosine, crops and flips), 92.8 to 95.5 %. Squares and discs are its most frequent mistakes.

    Args:
        num_train: Number of training images, at least 1.
        num_test: Number of test images, at least 1.
        seed: Non-negative seed of all images. The same three arguments give the same tensors.

    Returns:
        The training and the test images, uint8 `(N, 32, 32, 3)` with int64 labels `(N,)` in random order. Class
        sizes differ by at most one image.

    Raises:
        ValueError: A number of images is less than 1, or `seed` is negative.
    """
    if min(num_train, num_test) < 1:
        raise ValueError(f"num_train={num_train} and num_test={num_test}: each set needs at least 1 image")
    if seed < 0:
        raise ValueError(f"seed={seed} is negative")
    train, test = (
        _split(count, keyed_generator(_STREAM, seed, part)) for part, count in enumerate((num_train, num_test))
    )
    return train, test
