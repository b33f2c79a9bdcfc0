"""Train one composition or a sweep: `python -m cifar_lab.train model=vgg_a bn=true`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_lab.train.command import main, run, sweep

__all__ = ["main", "run", "sweep"]


def __getattr__(name: str) -> Any:
    """Import the command line lazily, so that `cifar_lab.train.classifier` works without Hydra."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cifar_lab.train import command

    return getattr(command, name)
