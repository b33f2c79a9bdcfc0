"""Batches the report's way: torchvision's transforms per image."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import transforms

from cifar_lab.data.images import LabelledImages
from cifar_lab.data.loader import BatchLoader
from cifar_lab.machine.exit_codes import UsageError

_HALVES = (0.5, 0.5, 0.5)


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images and labels as torchvision's data sets return them."""

    def __init__(self, data: LabelledImages, transform: Callable[[Any], Tensor]) -> None:
        self.images = data.images.numpy()
        self.labels = data.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class Order(Sampler[int]):
    """Sampler with the same image order in each epoch as the other loops."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self.loader.order(self.epoch).tolist())

    def __len__(self) -> int:
        return len(self.loader.data.labels)


def pil_transforms(
    config: DictConfig, mean: Sequence[float] = _HALVES, std: Sequence[float] = _HALVES
) -> Callable[[Any], Tensor]:
    """Return torchvision's transforms for the option `augment`; raise `ValueError` if the report's loop lacks them."""
    name = str(config.augment.get("_target_", "")).rpartition(".")[2]
    crop_and_flip = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    known: dict[str, list[Any]] = {
        "identity": [],
        "flip_crop": crop_and_flip,
        "randaugment": [*crop_and_flip, transforms.RandAugment()],
    }
    if name not in known:
        raise UsageError(f"augment={name}: the report's loop supports only {', '.join(known)}")
    to_numbers = [transforms.ToTensor(), transforms.Normalize(list(mean), list(std))]
    return transforms.Compose([*known[name], *to_numbers])
