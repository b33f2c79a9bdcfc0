"""Files of weights, as tensors by name, and what a file that `export` has written says of itself."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import check_kinds, from_json, read_checkpoint
from cifar_lab.runs.reading import RESULT_KINDS

SAFETENSORS = ".safetensors"
KEY = "cifar_lab"  # of the description in a file's metadata
SCHEMA_VERSION = 1

_KINDS = {"model": dict, "architecture": str, "mean": list, "std": list, "classes": list, "names": list, "facts": dict}


@dataclass(frozen=True)
class Description:
    """A trained network without its weights, in plain values."""

    model: Mapping[str, Any]  # the option that makes the network, with `_target_`
    architecture: str  # the same in a few words
    mean: Sequence[float]  # per channel, subtracted from images from 0 to 1
    std: Sequence[float]  # per channel, divided by
    classes: Sequence[str]  # their names, in the order of the logits
    names: Sequence[str]  # of the weights, in the network's order, which safetensors does not keep
    facts: Mapping[str, Any]  # what is known of it, by the names of `docs/run_directory.md`

    def text(self, **more: Any) -> str:
        """As JSON, with further plain values."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self), **more})

    @classmethod
    def from_text(cls, text: str) -> "Description":
        """Read what `text` has written, without the further values.

        Raises:
            ValueError: It is damaged, or made up by somebody.
        """
        values = from_json(text)
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        missing = [name for name in _KINDS if name not in values]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        check_kinds(values, _KINDS)
        check_kinds(values["facts"], RESULT_KINDS)
        for name in ("mean", "std"):
            channels = values[name]
            if len(channels) != 3 or not all(type(one) in (int, float) and math.isfinite(one) for one in channels):
                raise ValueError(f"{name} is not three numbers")
        if min(values["std"]) <= 0:
            raise ValueError("a std lies not above 0")
        words = [values["architecture"], *values["classes"], *values["names"]]
        if not all(isinstance(word, str) and word.isprintable() for word in words):
            raise ValueError("its names are no plain words")
        if not isinstance(values["model"].get("_target_"), str) or "${" in str(values["model"]):
            raise ValueError("its model names no class, or holds an interpolation, ${...}, in place of a value")
        return cls(**{field.name: values[field.name] for field in fields(cls)})


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
        raise UsageError(f"{path} is damaged, or no safetensors file: {reason(error)}") from None
    try:
        return state, None if text is None else Description.from_text(text)
    except ValueError as error:
        raise UsageError(f"{path}: its metadata is damaged: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What went wrong, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
