"""The model card of exported files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cifar_lab.config import resolved
from cifar_lab.export.formats import contract
from cifar_lab.export.kinds import Format
from cifar_lab.export.writing import Exported, Images
from cifar_lab.machine import provenance
from cifar_lab.runs import replacing
from cifar_lab.runs.labels import NO_PROBABILITIES, PROTOCOLS, data_words, protocol_words
from cifar_lab.statistics.accuracies import wilson_interval
from cifar_lab.trained import Overrides, Trained

NAME = "model_card.md"
_FACTS = ("best_epoch", "epochs", "fingerprint", "protocol", "precision", "train_size", "train_available")


def write(
    trained: Trained, files: Sequence[Exported], compared: Images, tolerance: float, folder: Path, overrides: Overrides
) -> Path:
    """Write the model card of at least one file into `folder`.

    `compared` and `tolerance` are those of `writing.export`; `overrides` names the allowed packages.

    Raises:
        OSError: The card cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("cifar_lab.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json.dumps
    data, protocol = (trained.facts.get("options") or {}).get("data"), trained.facts.get("protocol")
    held_out = PROTOCOLS.get(str(protocol))  # for a bare weight file, known only for our own protocols
    if protocol is not None and trained.config is not None:
        held_out = trained.holds_out
    takes = next((file.takes for file in files if file.takes is not None), None)
    values = {
        "title": trained.facts.get("name") or trained.weights.stem,
        "trained": trained,
        "files": {str(file.kind): file for file in files},
        "accuracy": _accuracy(trained.facts),
        "settings": _settings(trained),
        "facts": {**dict.fromkeys(_FACTS), **trained.facts},
        "data": None if data is None else data_words(str(data), {} if trained.config is None else trained.config),
        "is_cifar10": data == "cifar10",
        "protocol": protocol if held_out is None else f"{protocol}: {protocol_words(str(protocol), held_out)}",
        "held_out": held_out,
        "no_probabilities": NO_PROBABILITIES,
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "contract": None if takes is None else contract(takes, len(trained.classes)),
        "takes": takes,
        "compared": compared,
        "tolerance": tolerance,
        "allow": list(overrides.allow),
        "versions": _versions(files),
    }
    path = folder / NAME
    with replacing(path) as file:
        file.write(environment.get_template(f"{NAME}.j2").render(values))
    return path


def _accuracy(facts: Mapping[str, Any]) -> str | None:
    """Format the test accuracy with its Wilson interval; None if unknown."""
    accuracy, images = facts.get("test/acc"), facts.get("test_size")
    if accuracy is None or not 0 <= accuracy <= 1:
        return None
    if not images or images < 1:
        return f"{accuracy:.2%}"
    low, high = wilson_interval(round(accuracy * images), images)
    return f"{accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}, {images:,} images)"


def _settings(trained: Trained) -> dict[str, str]:
    """Return the training settings as on a command line, without paths."""
    options = {name: str(value) for name, value in (trained.facts.get("options") or {}).items() if value is not None}
    config = {} if trained.config is None else resolved(trained.config)
    settings = {}
    for group in ("loss", "optimizer", "scheduler", "averaging", "augment"):
        if group in options:
            settings[group] = f"{options[group]} {_values(config.get(group))}".strip()
    names = ("epochs", "batch_size", "l1", "grad_clip", "seed")
    settings |= {name: str(config[name]) for name in names if name in config}
    return settings | ({"precision": str(trained.facts["precision"])} if "precision" in trained.facts else {})


def _values(option: Any) -> str:
    if not isinstance(option, Mapping):
        return ""
    values = [f"{name}={value}" for name, value in option.items() if not str(name).startswith("_")]
    return f"({', '.join(values)})" if values else ""


def _versions(files: Sequence[Exported]) -> dict[str, str]:
    versions = provenance.versions()
    versions = {name: versions[name] for name in versions if name in ("python", "cifar_lab", "torch")}
    for file in files:
        if file.kind is Format.ONNX:
            import onnx
            import onnxruntime

            opset = next(one.version for one in onnx.load(file.path).opset_import if not one.domain)
            versions |= {"onnx opset": str(opset), "onnxruntime": onnxruntime.__version__}
    return versions
