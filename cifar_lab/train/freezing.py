"""Freezes layers during training."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cifar_lab.machine.exit_codes import UsageError


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Freeze modules or parameters of a network: they get no gradient and are not passed to the optimizer.

    A frozen BatchNorm uses its running statistics and does not update them, even if the statistics of averaged weights
    are re-estimated. `Classifier.train` keeps it in evaluation mode. Dropout stays active.

    Raises:
        ValueError: The network has no such module, or nothing is left to train.
    """
    parts: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_modules())}
    for name in names:
        if not name or name not in parts:
            inside = _nearest(model, str(name))
            there = ", ".join(child for child, _ in model.get_submodule(inside).named_children())
            where = f"{inside} has" if inside else "the network has"
            raise UsageError(f"freeze=[{name}]: no such module; {where} {there or 'none'}")
        parts[name].requires_grad_(False)
        for module in parts[name].modules() if isinstance(parts[name], nn.Module) else ():
            if _has_statistics(module):
                module.track_running_stats = False  # read by `keep_frozen` and torch's `update_bn`
    if names and not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(f"freeze=[{','.join(names)}] leaves no weight to train; freeze less")
    keep_frozen(model)


def keep_frozen(model: nn.Module) -> None:
    """Put normalisation layers with frozen statistics in evaluation mode."""
    for module in model.modules():
        if _has_statistics(module) and not module.track_running_stats:
            module.eval()


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_mean", None), Tensor)


def _nearest(model: nn.Module, name: str) -> str:
    """Return the longest prefix of a dotted name that is a module of the network; empty for the network itself."""
    modules = dict(model.named_modules())
    while name not in modules:
        name = name.rpartition(".")[0]
    return name
