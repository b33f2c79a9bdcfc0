"""What the names of the report's published weight files say, and what nothing says and so is assumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cifar_lab.config import conf_folder
from cifar_lab.data.datamodule import CIFAR10_MEAN, CIFAR10_STD
from cifar_lab.trained.architecture import Architecture
from cifar_lab.trained.said import Said

_OF_MODEL = {"cnn": "leaky_relu", "resnet14": "swish", "resnet18": "swish"}  # VGGs: relu
# The files that are not named by their settings: the best CNN's and SWA's, whose listing has this slope.
_BEST = ("best_model_9153", "best_model_swa_8517")
_BEST_SLOPE = 0.05
_HALVES = (0.5, 0.5, 0.5)


class Completed(NamedTuple):
    """What a file of weights lacks.

    Attributes:
        activation: As an option of `activation` has it.
        mean: Per channel, subtracted from images from 0 to 1.
        std: Per channel, divided by.
        assumed: What neither the file nor the command line says, a line each.
    """

    activation: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    assumed: tuple[str, ...]


def completed(path: Path, network: Architecture, said: Said) -> Completed:
    """What the file's name says, what the command line says, and else what the report's text does.

    Args:
        path: Of the weights.
        network: What their shapes say.
        said: Of the command line.

    Raises:
        ValueError: There is no such activation, or a slope is given to one that has none.
    """
    assumed: list[str] = []
    activation = _activation(path, network, said, assumed)
    mean, std = said.mean, said.std
    if mean is None or std is None:
        cifar10 = network.option == "cnn"
        mean, std = mean or (CIFAR10_MEAN if cifar10 else _HALVES), std or (CIFAR10_STD if cifar10 else _HALVES)
        words = "CIFAR-10's own" if cifar10 else "0.5"
        assumed.append(
            f"inputs normalised by mean {_joined(mean)} and std {_joined(std)} ({words}: the report's "
            f"{'CNNs' if cifar10 else 'VGG and ResNet'}); --mean, --std"
        )
    return Completed(activation, tuple(mean), tuple(std), tuple(assumed))


def _activation(path: Path, network: Architecture, said: Said, assumed: list[str]) -> dict[str, Any]:
    files = (conf_folder() / "activation").glob("*.yaml")
    options = {file.stem: yaml.safe_load(file.read_text()) for file in files}
    option = said.activation or _named(path, options)
    if option is None:
        option = _OF_MODEL.get(network.option, "relu")
        assumed.append(f"activation {option}, as the report's {network.option}; --activation")
    if option not in options:
        raise ValueError(f"--activation {option} does not exist; there are {', '.join(sorted(options))}")
    made = options[option]
    if option != "leaky_relu":
        if said.negative_slope is not None:
            raise ValueError(f"--negative-slope is of leaky_relu; {path} has {option}")
        return made
    if said.negative_slope is not None:
        return {**made, "negative_slope": said.negative_slope}
    is_best = path.stem in _BEST
    slope = _BEST_SLOPE if is_best else made["negative_slope"]
    source = "the listing of the report's best configuration" if is_best else "the report's text"
    assumed.append(f"LeakyReLU's slope {slope:g} ({source}); --negative-slope")
    return {**made, "negative_slope": slope}


def _named(path: Path, options: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The option of the activation, or of its class, in a name such as `best_model_LeakyReLU_..._8842.pth`."""
    if not path.stem.startswith("best_model_"):
        return None
    word = path.stem.removeprefix("best_model_").partition("_")[0].lower()
    of_class = {made["_target_"].rpartition(".")[2].lower(): option for option, made in options.items()}
    return word if word in options else of_class.get(word)


def _joined(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
