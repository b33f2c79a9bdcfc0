"""Describes bare weight files, such as the report's, by their names, and assumes the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cifar_lab.config import conf_folder
from cifar_lab.data.cifar10 import CLASSES
from cifar_lab.data.datamodule import CIFAR10_MEAN, CIFAR10_STD
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.trained.architecture import Architecture
from cifar_lab.trained.arguments import Overrides
from cifar_lab.trained.files import Description

_OF_MODEL = {"cnn": "leaky_relu", "resnet14": "swish", "resnet18": "swish", "speed_cnn": "gelu"}  # VGGs: relu
# Files whose names do not have their settings: the best CNN's and SWA's, whose listing has this slope.
_BEST = ("best_model_9153", "best_model_swa_8517")
_BEST_SLOPE = 0.05
_HALVES = (0.5, 0.5, 0.5)


def completed(
    path: Path, names: list[str], network: Architecture, overrides: Overrides
) -> tuple[Description, list[str]]:
    """Describe a bare weight file by the command line, else by the file's name, else by the report's text.

    Returns:
        The description, and a line for each assumed value.

    Raises:
        ValueError: The activation does not exist, or has no slope although one is given.
    """
    assumed: list[str] = []
    activation = _activation(path, network, overrides, assumed)
    mean, std = overrides.mean, overrides.std
    if mean is None or std is None:
        cifar10 = network.option == "cnn"
        mean, std = mean or (CIFAR10_MEAN if cifar10 else _HALVES), std or (CIFAR10_STD if cifar10 else _HALVES)
        words = "CIFAR-10's own" if cifar10 else "0.5"
        assumed.append(
            f"inputs normalised by mean {_joined(mean)} and std {_joined(std)} ({words}: the report's "
            f"{'CNNs' if cifar10 else 'VGG and ResNet'}); --mean, --std"
        )
    count = int(network.arguments["num_classes"])
    described = Description(
        model={"_target_": network.target, **network.arguments, "activation": activation},
        architecture=str(network),
        mean=tuple(mean),
        std=tuple(std),
        classes=CLASSES if count == len(CLASSES) else [str(label) for label in range(count)],
        names=names,
        facts={},
    )
    return described, assumed


def _activation(path: Path, network: Architecture, overrides: Overrides, assumed: list[str]) -> dict[str, Any]:
    files = (conf_folder() / "activation").glob("*.yaml")
    options = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    option = overrides.activation or _named(path, options)
    if option is None:
        option = _OF_MODEL.get(network.option, "relu")
        assumed.append(f"activation {option}, as the report's {network.option}; --activation")
    if option not in options:
        raise UsageError(f"--activation {option} does not exist; there are {', '.join(sorted(options))}")
    if option != "leaky_relu":
        if overrides.negative_slope is not None:
            raise UsageError(f"--negative-slope applies to leaky_relu; {path} has {option}")
        return options[option]
    slope = overrides.negative_slope
    if slope is None:
        is_best = path.stem in _BEST
        slope = _BEST_SLOPE if is_best else options[option]["negative_slope"]
        source = "the listing of the report's best configuration" if is_best else "the report's text"
        assumed.append(f"LeakyReLU's slope {slope:g} ({source}); --negative-slope")
    return {**options[option], "negative_slope": slope}


def _named(path: Path, options: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the activation option in a name like `best_model_LeakyReLU_..._8842.pth`, by option or class name."""
    if not path.stem.startswith("best_model_"):
        return None
    word = path.stem.removeprefix("best_model_").partition("_")[0].lower()
    of_class = {made["_target_"].rpartition(".")[2].lower(): option for option, made in options.items()}
    return word if word in options else of_class.get(word)


def _joined(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
