"""Initial weights from a file or another run."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from cifar_lab.config.weights import digest, file_of
from cifar_lab.machine import ranks
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.printing import printable
from cifar_lab.trained.architecture import in_names_of
from cifar_lab.trained.files import read

_SHOWN = 4  # names printed per line


def load_weights(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Load the tensors of `weights=` that match by name and shape, and print the names of the others.

    Tensors that `fit_to` has set are overwritten too.

    Raises:
        ValueError: The file cannot be used, has changed since the command line was checked, or has no matching tensor.
    """
    named = config.get("weights")
    if named is None:
        return
    path, own = file_of(named), model.state_dict()
    if digest(named) != config["weights_digest"]:
        raise UsageError(
            f"weights={named}: {path} has changed since the command began, or does not match weights_digest="
        )
    content = read(path)
    state = in_names_of(content.state, own)
    loaded = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not any(value.ndim for value in loaded.values()):
        raise UsageError(
            f"weights={named}: no tensor in the file matches a weight of the network by name and shape; "
            f"the file has {_listed(state)}, the network has {_listed(own)}"
        )
    model.load_state_dict(loaded, strict=False)
    if ranks.rank() == 0:
        _report(f"weights={named}", loaded, own, state, content.choice)


def _report(
    word: str, loaded: Mapping[str, Tensor], own: Mapping[str, Tensor], state: Mapping[str, Tensor], choice: str | None
) -> None:
    print(f"{word}: {len(loaded)} of {len(own)} tensors loaded{f' ({choice})' if choice else ''}", flush=True)
    kinds = {
        "different shape": [name for name in own if name in state and name not in loaded],
        "not in the file": [name for name in own if name not in state],
        "only in the file": [name for name in state if name not in own],
    }
    if parts := [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]:
        print(f"{word}: {'; '.join(parts)}", flush=True)


def _listed(names: Collection[str]) -> str:
    """Return the first names, and the number of the remaining ones."""
    first, more = ", ".join(map(printable, list(names)[:_SHOWN])), len(names) - _SHOWN
    return f"{first} and {more} more" if more > 0 else first or "nothing"
