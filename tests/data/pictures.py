"""Random images and generators for the tests in this folder."""

import torch
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, height: int = 32, width: int = 32, *, darkest: int = 0) -> Tensor:
    return torch.randint(darkest, 256, (count, height, width, 3), dtype=torch.uint8, generator=seeded())
