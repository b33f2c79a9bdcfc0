"""Trained networks, loaded from a run's folder or a weight file."""

import importlib
from typing import TYPE_CHECKING, Any

from cifar_lab.trained.arguments import Overrides, check_there

if TYPE_CHECKING:
    from cifar_lab.trained.loading import load
    from cifar_lab.trained.network import Answers, Trained, answer, confident_mistakes

__all__ = ["Answers", "Overrides", "Trained", "answer", "check_there", "confident_mistakes", "load"]

_HOMES = {
    "load": "cifar_lab.trained.loading",
    **dict.fromkeys(("Answers", "Trained", "answer", "confident_mistakes"), "cifar_lab.trained.network"),
}


def __getattr__(name: str) -> Any:
    """Import modules that need torch on first use, so that a command's help does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
