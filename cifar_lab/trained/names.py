"""What logits are called."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar_lab.trained.network import Trained


def class_names(trained: "Trained", count: int) -> list[str]:
    """Names of `count` logits; one that the data has no class for is named by its number."""
    names = [str(name) for name in trained.classes[:count]]
    return names + [str(label) for label in range(len(names), count)]
