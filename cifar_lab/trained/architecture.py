"""Which network weights belong to, read off their names and shapes: those of the report's published files, and ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A network without its activation, which no shape tells.

    Attributes:
        option: The option of `model` that it is a form of.
        target: Its class.
        arguments: Of that class, but for the activation.
    """

    option: str
    target: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        """As a command line would have it, such as `cnn filters=[64,128,256] bn=true`."""
        sizes = {"CNN": ("filters",), "VGG": ("stages", "hidden"), "ResNet": ("blocks", "widths")}
        told = [f"{name}={_plain(self.arguments[name])}" for name in sizes[self.target.rpartition(".")[2]]]
        return " ".join([self.option, *told, f"bn={_plain(self.arguments['batch_norm'])}"])


def architecture(state: State) -> Architecture | None:
    """The network whose state dict this is; None where it is none of this project's.

    Args:
        state: Names as `cifar_lab.models` and the report's published files have them.
    """
    for is_of, read in ((_is_cnn, _cnn), (_is_resnet, _resnet), (_is_vgg, _vgg)):
        if is_of(state):
            try:
                return read(state)
            except (KeyError, IndexError, TypeError, ValueError):
                return None
    return None


def described(state: State) -> str:
    """What a state dict's network is, for a message."""
    found = architecture(state)
    return "a network that is none of this project's" if found is None else str(found)


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """A network's own state dict, out of a checkpoint's or an average's.

    Args:
        state: Plain; or a checkpoint of Lightning's with the network as `model`; or torch's AveragedModel's, whose
            names begin with `module.`, beside `n_averaged`.
    """
    if isinstance(state.get("state_dict"), Mapping):
        return _without(state["state_dict"], "model.")
    return _without(state, "module.") if "n_averaged" in state else dict(state)


def _without(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}


def _is_cnn(state: State) -> bool:
    return "conv_layers.0.weight" in state


def _cnn(state: State) -> Architecture:
    filters = [len(state[f"conv_layers.{place}.weight"]) for place in (0, 4, 8)]
    arguments = {
        "filters": filters,
        "batch_norm": "conv_layers.1.running_mean" in state,
        "num_classes": len(state["fc_layers.6.weight"]),
    }
    return Architecture("cnn", "cifar_lab.models.CNN", arguments)


def _is_resnet(state: State) -> bool:
    return "layer1.0.conv1.weight" in state


def _resnet(state: State) -> Architecture:
    blocks: list[int] = []
    while (count := _count(state, f"layer{len(blocks) + 1}.{{}}.conv1.weight")) > 0:
        blocks.append(count)
    arguments = {
        "blocks": blocks,
        "widths": [len(state[f"layer{stage}.0.conv1.weight"]) for stage in range(1, len(blocks) + 1)],
        "batch_norm": "bn1.running_mean" in state,
        "num_classes": len(state["linear.weight"]),
    }
    return Architecture("resnet18" if len(blocks) == 4 else "resnet14", "cifar_lab.models.ResNet", arguments)


def _is_vgg(state: State) -> bool:
    return "features.0.weight" in state or "stage1.0.weight" in state


def _vgg(state: State) -> Architecture:
    by_stage = "stage1.0.weight" in state
    batch_norm = f"{'stage1' if by_stage else 'features'}.1.running_mean" in state
    head = sorted(_indices(state, r"classifier\.(\d+)\.weight"))
    arguments = {
        "stages": _stages(state) if by_stage else _stages_of_sequence(state, batch_norm),
        "hidden": len(state[f"classifier.{head[0]}.weight"]),
        "dropout": 0.5 if head[0] else None,  # a layer of dropout has no weights, but a number
        "batch_norm": batch_norm,
        "by_stage": by_stage,
        "num_classes": len(state[f"classifier.{head[-1]}.weight"]),
    }
    option = "vgg_a" if not by_stage else "vgg_a_dropout" if head[0] else "vgg_a_light"
    return Architecture(option, "cifar_lab.models.VGG", arguments)


def _stages(state: State) -> list[list[int]]:
    stages: list[list[int]] = []
    while convolutions := _convolutions(state, f"stage{len(stages) + 1}"):
        stages.append(list(convolutions.values()))
    return stages


def _stages_of_sequence(state: State, batch_norm: bool) -> list[list[int]]:
    """A pool between two convolutions has no weights, but a number: those around it lie one further apart."""
    stages: list[list[int]] = []
    beside, last = 3 if batch_norm else 2, None
    for place, width in _convolutions(state, "features").items():
        if last is None or place - last > beside:
            stages.append([])
        stages[-1].append(width)
        last = place
    return stages


def _convolutions(state: State, part: str) -> dict[int, int]:
    """The widths of a sequence's convolutions by their place."""
    places = sorted(_indices(state, rf"{part}\.(\d+)\.weight"))
    weights = {place: state[f"{part}.{place}.weight"] for place in places}
    return {place: len(weight) for place, weight in weights.items() if weight.ndim == 4}


def _indices(state: State, pattern: str) -> set[int]:
    matched: list[re.Match[str] | None] = [re.fullmatch(pattern, name) for name in state]
    return {int(match[1]) for match in matched if match}


def _count(state: State, name: str) -> int:
    count = 0
    while name.format(count) in state:
        count += 1
    return count


def _plain(value: Any) -> str:
    return str(value).lower().replace(" ", "")
