"""Reads weight files as tensors by name, with the description that `export` writes into its files."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import check_kinds, from_json, read_checkpoint
from cifar_lab.runs.reading import RESULT_KINDS

SAFETENSORS = ".safetensors"
KEY = "cifar_lab"  # key of the description in a file's metadata
SCHEMA_VERSION = 1

# Keys of the state dict in checkpoints of timm, torchvision, Lightning and others; averages first.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_NETWORKS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
_COMPILED = "_orig_mod."  # torch.compile adds it to names
_SINGLE = 4  # bytes of a float32
_SHOWN = 4  # names in a message

_KINDS = {"model": dict, "architecture": str, "mean": list, "std": list, "classes": list, "names": list, "facts": dict}


@dataclass(frozen=True)
class Description:
    """A trained network without its weights, in plain values."""

    model: Mapping[str, Any]  # the option that builds the network, with `_target_`
    architecture: str  # a short description of it
    mean: Sequence[float]  # per channel, subtracted from images in [0, 1]
    std: Sequence[float]  # the divisor per channel
    classes: Sequence[str]  # class names, in the order of the logits
    names: Sequence[str]  # names of the weights, in the network's order, which safetensors does not keep
    facts: Mapping[str, Any]  # results of its run, by the names in `docs/run_directory.md`

    def text(self, **more: Any) -> str:
        """Return the description as JSON, with additional plain values."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self), **more})

    @classmethod
    def from_text(cls, text: str) -> "Description":
        """Read the description written by `text`, without the additional values.

        Raises:
            ValueError: The text is damaged or forged.
        """
        values = from_json(text)
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
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
            raise ValueError("a std must be above 0")
        words = [values["architecture"], *values["classes"], *values["names"]]
        if not all(isinstance(word, str) and word.isprintable() for word in words):
            raise ValueError("its names are not printable text")
        if not isinstance(values["model"].get("_target_"), str) or "${" in str(values["model"]):
            raise ValueError("its model names no class, or has an interpolation, ${...}, instead of a value")
        return cls(**{field.name: values[field.name] for field in fields(cls)})


class Content(NamedTuple):
    """The content of a file of weights."""

    state: dict[str, Tensor]  # by the file's own names, see `architecture.spellings`; on the CPU, in float32 or better
    description: Description | None  # written by `export` into a safetensors file
    choice: str | None  # a note on which of several networks it is


def read(path: Path) -> Content:
    """Read a network's state dict, alone or in a checkpoint under `state_dict`, `model`, `net` or a similar key.

    If a checkpoint has both weights and their average, the average is read. The prefix `_orig_mod.` of compiled modules
    is removed from names, and half precision is converted to float32.

    Raises:
        ValueError: The file is damaged, has no weights, or needs safetensors, which is not installed.
        OSError: The file cannot be read.
    """
    whole, description = _safetensors(path) if path.suffix == SAFETENSORS else (read_checkpoint(path), None)
    content, choice = _of_network(whole)
    if not content or not _is_state(content):
        holds = ", ".join(map(repr, list(content)[:_SHOWN])) or "nothing"
        how = "save a state dict alone, torch.save(model.state_dict(), FILE)"
        raise UsageError(f"{path} is not a file of weights ({how}): it holds {holds}")
    state = {}
    for name, value in content.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # by forged sizes
            raise UsageError(f"{path} is damaged: {name} is larger than the file")
        is_half = value.is_floating_point() and value.element_size() < _SINGLE
        state[name.replace(_COMPILED, "")] = value.float() if is_half else value
    return Content(state, description, choice)


def _of_network(content: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str | None]:
    """Return the innermost mapping that is a state dict, and a note if it is an average next to other weights."""
    choice = None
    while not _is_state(content):
        inner = [key for key, value in content.items() if isinstance(value, Mapping) and value]
        named = [key for key in (*_AVERAGES, *_NETWORKS) if key in inner]
        states = [key for key in inner if _is_state(content[key])] or inner
        if not named and len(states) != 1:
            break
        key, *others = named or states
        if key in _AVERAGES and others:
            choice = f"{key}, its average, not {others[0]}"
        content = content[key]
    return content, choice


def _is_state(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


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
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged, or not a safetensors file: {reason(error)}") from None
    try:
        return state, None if text is None else Description.from_text(text)
    except ValueError as error:
        raise UsageError(f"{path}: its metadata is damaged: {reason(error)}") from None


def reason(error: Exception) -> str:
    """Return an error's message in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
