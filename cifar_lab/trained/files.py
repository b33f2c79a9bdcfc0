"""Files of weights, as tensors by name and what a file says of itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import read_checkpoint
from cifar_lab.trained.description import KEY, Description

SAFETENSORS = ".safetensors"


def read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    """Read a network's state dict, on the CPU, and the description that `export` writes into a safetensors file.

    Checkpoints of Lightning, whose names begin with `model.`, and torch's AveragedModel, whose names begin with
    `module.` beside `n_averaged`, are unwrapped.

    Raises:
        ValueError: The file is damaged, holds no weights, or needs safetensors, which is not installed.
        OSError: It cannot be read.
    """
    content, description = _safetensors(path) if path.suffix == SAFETENSORS else (read_checkpoint(path), None)
    foreign = [name for name in content if not isinstance(name, str)]
    state = {} if foreign else _unwrapped(content)
    foreign += [f"{name} is no tensor" for name, value in state.items() if not isinstance(value, Tensor)]
    if foreign or not state:
        raise UsageError(f"{path} is no file of weights: {foreign[0] if foreign else 'it is empty'}")
    for name, value in state.items():  # a tensor can claim to be larger than its storage
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UsageError(f"{path} is damaged: {name} is larger than the file")
    return state, description


def _unwrapped(content: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(content.get("state_dict"), Mapping):
        content, prefix = content["state_dict"], "model."
    elif "n_averaged" in content:
        prefix = "module."
    else:
        return dict(content)
    return {name.removeprefix(prefix): value for name, value in content.items() if str(name).startswith(prefix)}


def _safetensors(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UsageError(f"{path} needs safetensors: pip install 'cifar-lab[export]'") from None
    with path.open("rb"):  # to tell a file that cannot be opened from a damaged one
        pass
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, as it is no dict
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged, or no safetensors file: {_words(error)}") from None
    try:
        return state, None if text is None else Description.from_text(text)
    except ValueError as error:
        raise UsageError(f"{path}: its metadata is damaged: {_words(error)}") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
