"""Where training starts: the weights of another network, and layers that are frozen."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cifar_lab.config.weights import digest, file_of
from cifar_lab.machine import ranks
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.printing import printable
from cifar_lab.trained.architecture import in_names_of
from cifar_lab.trained.files import read

_SHOWN = 4  # names in a line


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Keep modules or parameters of a network as they are: they get no gradient, and no optimizer gets them.

    A frozen BatchNorm normalises by its running statistics as in evaluation, and keeps them, also where averaged
    weights have theirs estimated again; `Classifier.train` leaves it in that mode. Dropout stays active.

    Raises:
        ValueError: The network has no such module, or nothing is left to train.
    """
    parts: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_modules())}
    for name in names:
        if not name or name not in parts:
            inside = _nearest(model, str(name))
            there = ", ".join(child for child, _ in model.get_submodule(inside).named_children())
            where = f"{inside} has" if inside else "the network has"
            raise UsageError(f"freeze=[{name}]: there is no such module; {where} {there or 'none'}")
        parts[name].requires_grad_(False)
        for module in parts[name].modules() if isinstance(parts[name], nn.Module) else ():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.track_running_stats = False  # what `keep_frozen` and torch's `update_bn` go by
    if names and not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(f"freeze=[{','.join(names)}] leaves no weight to train; freeze less")
    keep_frozen(model)


def keep_frozen(model: nn.Module) -> None:
    """Put normalisation layers with frozen statistics in evaluation mode."""
    for module in model.modules():
        if isinstance(module, _NormBase) and module.running_mean is not None and not module.track_running_stats:
            module.eval()


def _nearest(model: nn.Module, name: str) -> str:
    """The longest beginning of a dotted name that is a module of the network; empty for the network itself."""
    modules = dict(model.named_modules())
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def load_weights(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Replace what `weights=` has by name and shape, whatever `fit_to` made of it, and print what it has not.

    Raises:
        ValueError: The file cannot be used, is not the one that the command line was checked with, or has nothing of
            the network.
    """
    named = config.get("weights")
    if named is None:
        return
    path, own = file_of(named), model.state_dict()
    if digest(named) != config["weights_digest"]:
        raise UsageError(f"weights={named}: {path} is not what it was when the command began, or not weights_digest=")
    content = read(path)
    state = in_names_of(content.state, own)
    loaded = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not any(value.ndim for value in loaded.values()):
        raise UsageError(
            f"weights={named}: nothing in it has the name and the shape of a weight of this network; "
            f"it has {_listed(state)}, the network {_listed(own)}"
        )
    model.load_state_dict(loaded, strict=False)
    if ranks.rank() == 0:
        _report(f"weights={named}", loaded, own, state, content.choice)


def _report(
    word: str, loaded: Mapping[str, Tensor], own: Mapping[str, Tensor], state: Mapping[str, Tensor], choice: str | None
) -> None:
    print(f"{word}: {len(loaded)} of {len(own)} tensors loaded{f' ({choice})' if choice else ''}", flush=True)
    kinds = {
        "of another shape there": [name for name in own if name in state and name not in loaded],
        "not there": [name for name in own if name not in state],
        "only there": [name for name in state if name not in own],
    }
    if told := [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]:
        print(f"{word}: {'; '.join(told)}", flush=True)


def _listed(names: Collection[str]) -> str:
    """A few names, and how many there are more."""
    shown, more = ", ".join(map(printable, list(names)[:_SHOWN])), len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
