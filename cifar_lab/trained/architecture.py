"""Recognises a network by the names and shapes of its weights, in the report's published files and in ours."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]
# Prefixes that wrappers add to a network's names: DataParallel, DDP, Lightning modules and others.
_PREFIXES = ("module.", "model.", "network.", "net.")
_NESTED = 4  # nested wrappers
# The arguments of each class that determine its size.
_SIZES = {
    "CNN": ("filters",),
    "ResNet": ("blocks", "widths"),
    "SpeedCNN": ("widths", "depth"),
    "VGG": ("stages", "hidden"),
}


@dataclass(frozen=True)
class Architecture:
    """A network without its activation, which shapes do not reveal."""

    option: str  # the option of `model` that it is a variant of
    target: str  # its class
    arguments: Mapping[str, Any]  # arguments of that class, except the activation

    def __str__(self) -> str:
        """Format as on a command line, such as `cnn filters=[64,128,256] bn=true`."""
        words = [f"{name}={_plain(self.arguments[name])}" for name in _SIZES[self.target.rpartition(".")[2]]]
        return " ".join([self.option, *words, f"bn={_plain(self.arguments['batch_norm'])}"])


def _plain(value: Any) -> str:
    return str(value).lower().replace(" ", "")


def spellings(state: State, nested: int = _NESTED) -> Iterator[State]:
    """Yield a state dict unchanged, then without a wrapper's prefix, dropping names that lack the prefix."""
    yield state
    for prefix in _PREFIXES if nested else ():
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if inside:
            yield from spellings(inside, nested - 1)


def in_names_of(state: State, own: Collection[str]) -> State:
    """Return the one of the `spellings` with the most names of a network."""
    return max(spellings(state), key=lambda spelling: sum(name in own for name in spelling))


def in_our_names(state: State) -> State:
    """Return the first of the `spellings` that is a network of this project, else the state dict unchanged."""
    return next((spelling for spelling in spellings(state) if architecture(spelling)), state)


def architecture(state: State) -> Architecture | None:
    """Return the network of a state dict; None if it is not one of this project's.

    Args:
        state: State dict with the names of `cifar_lab.models`, as in the report's published files.
    """
    first = {
        "conv_layers.0": _cnn,
        "layer1.0.conv1": _resnet,
        "features.0": _vgg,
        "stage1.0": _vgg,
        "whiten": _speed_cnn,
    }
    read = next((read for name, read in first.items() if f"{name}.weight" in state), None)
    try:
        return None if read is None else read(state)
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def described(state: State) -> str:
    """Describe a state dict's network for a message."""
    known = architecture(in_our_names(state))
    return "a network that is not from this project" if known is None else str(known)


def _cnn(state: State) -> Architecture:
    arguments = {
        "filters": [len(state[f"conv_layers.{place}.weight"]) for place in (0, 4, 8)],
        "batch_norm": "conv_layers.1.running_mean" in state,
        "num_classes": len(state["fc_layers.6.weight"]),
    }
    return Architecture("cnn", "cifar_lab.models.CNN", arguments)


def _resnet(state: State) -> Architecture:
    blocks: list[int] = []
    while count := len(_indices(state, rf"layer{len(blocks) + 1}\.(\d+)\.conv1\.weight")):
        blocks.append(count)
    widths = [len(state[f"layer{stage}.0.conv1.weight"]) for stage in range(1, len(blocks) + 1)]
    stem, projects = len(state["conv1.weight"]), any(".shortcut.0." in name for name in state)
    arguments = {
        "blocks": blocks,
        "widths": widths,
        "stem": None if stem == widths[0] else stem,
        "preactivation": "last.0.weight" in state,
        "shortcut": "projection" if projects or len(blocks) == 1 else "padding",
        "batch_norm": "bn1.running_mean" in state,
        "num_classes": len(state["linear.weight"]),
    }
    option = "resnet18" if len(blocks) == 4 else "resnet14"
    if arguments["preactivation"]:
        option = "wide_resnet" if arguments["stem"] else "preact_resnet18"
    elif arguments["shortcut"] == "padding":
        option = "resnet20"
    return Architecture(option, "cifar_lab.models.ResNet", arguments)


def _speed_cnn(state: State) -> Architecture:
    arguments = {
        "widths": [len(state[f"groups.{group}.convs.0.weight"]) for group in range(3)],
        "depth": len(_indices(state, r"groups\.0\.convs\.(\d+)\.weight")),
        "batch_norm": "groups.0.norms.0.running_mean" in state,
        "num_classes": len(state["head.weight"]),
    }
    return Architecture("speed_cnn", "cifar_lab.models.SpeedCNN", arguments)


def _vgg(state: State) -> Architecture:
    by_stage = "stage1.0.weight" in state
    batch_norm = f"{'stage1' if by_stage else 'features'}.1.running_mean" in state
    head = _indices(state, r"classifier\.(\d+)\.weight")
    arguments = {
        "stages": _stages(state) if by_stage else _stages_of_sequence(state, batch_norm),
        "hidden": len(state[f"classifier.{head[0]}.weight"]) if head[1:] else None,
        "dropout": 0.5 if head[0] else None,  # a dropout layer has no weights, but an index
        "batch_norm": batch_norm,
        "by_stage": by_stage,
        "num_classes": len(state[f"classifier.{head[-1]}.weight"]),
    }
    plain = "vgg_a" if head[1:] else "vgg16"
    option = plain if not by_stage else "vgg_a_dropout" if head[0] else "vgg_a_light"
    return Architecture(option, "cifar_lab.models.VGG", arguments)


def _stages(state: State) -> list[list[int]]:
    stages: list[list[int]] = []
    while convolutions := _convolutions(state, f"stage{len(stages) + 1}"):
        stages.append(list(convolutions.values()))
    return stages


def _stages_of_sequence(state: State, batch_norm: bool) -> list[list[int]]:
    """Split convolutions into stages where indices are one further apart: a pool has no weights, but an index."""
    stages: list[list[int]] = []
    last = None
    for place, width in _convolutions(state, "features").items():
        if last is None or place - last > (3 if batch_norm else 2):
            stages.append([])
        stages[-1].append(width)
        last = place
    return stages


def _convolutions(state: State, part: str) -> dict[int, int]:
    """Return the width of each convolution of a sequence, by its index."""
    weights = {place: state[f"{part}.{place}.weight"] for place in _indices(state, rf"{part}\.(\d+)\.weight")}
    return {place: len(weight) for place, weight in weights.items() if weight.ndim == 4}


def _indices(state: State, pattern: str) -> list[int]:
    return sorted({int(match[1]) for match in (re.fullmatch(pattern, name) for name in state) if match})
