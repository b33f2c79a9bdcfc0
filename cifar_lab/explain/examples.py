"""Images to be explained, and what the network takes them for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar_lab.terminal.printing import shown
from cifar_lab.trained import Trained, answer, confident_mistakes


@dataclass(frozen=True)
class Example:
    """An image and its most probable class.

    Attributes:
        name: Of its file, or its number in the test set, from 0.
        pixels: uint8 `(32, 32, 3)`.
        label: The class that it is taken for.
        predicted: That class's name.
        probability: Its probability, from 0 to 1.
        true: The name of the class that it is of; None where nobody says.
    """

    name: str
    pixels: Tensor
    label: int
    predicted: str
    probability: float
    true: str | None = None


def of_files(trained: Trained, read: Sequence[tuple[Path, np.ndarray]]) -> list[Example]:
    """Examples of image files.

    Args:
        trained: The network.
        read: The files, at least one, each with uint8 `(32, 32, 3)`.
    """
    pixels = torch.from_numpy(np.stack([image for _, image in read]))
    logits = trained.logits_of_pixels(pixels).cpu()
    shares, labels = logits.softmax(dim=1).max(dim=1)
    names = trained.class_names(logits.shape[1])
    return [
        Example(str(path), image, label, names[label], share)
        for (path, _), image, label, share in zip(read, pixels, labels.tolist(), shares.tolist(), strict=True)
    ]


def mistaken(trained: Trained, count: int) -> list[Example]:
    """The test images that are taken for a wrong class with the highest probability, the highest first.

    Args:
        trained: The network.
        count: At most; there may be fewer mistakes.

    Raises:
        DataError: The test set is not there.
    """
    loader = trained.datamodule().test_dataloader()
    given = answer(trained, shown(loader, f"{trained.label}: test"))
    shares, labels = given.logits.double().softmax(dim=1).max(dim=1)
    images, truth = (part.cpu() for part in loader.data)
    names = trained.class_names(given.logits.shape[1])
    return [
        Example(
            name=str(place),
            pixels=images[place],
            label=int(labels[place]),
            predicted=names[int(labels[place])],
            probability=float(shares[place]),
            true=names[int(truth[place])],
        )
        for place in confident_mistakes(given, count).tolist()
    ]
