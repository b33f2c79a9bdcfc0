"""The model card: what a reader of the files has to know."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cifar_lab.config import resolved
from cifar_lab.export.graph import contract
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.verification import Images
from cifar_lab.export.writing import Exported
from cifar_lab.machine import provenance
from cifar_lab.runs import replacing
from cifar_lab.runs.labels import data_name, protocol_words
from cifar_lab.statistics.accuracies import wilson_interval
from cifar_lab.trained import Said, Trained

NAME = "model_card.md"
# Of which the card tells those that are known.
_FACTS = ("best_epoch", "epochs", "fingerprint", "protocol", "precision", "train_size", "train_available")


def write(
    trained: Trained, files: Sequence[Exported], compared: Images, tolerance: float, folder: Path, said: Said
) -> Path:
    """Write the card beside the files that it describes.

    Args:
        trained: The network.
        files: Those that were written.
        compared: What they were compared on.
        tolerance: The largest difference of a logit.
        folder: Where they are.
        said: Of the command line, for what may run.

    Returns:
        The card.

    Raises:
        OSError: It cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("cifar_lab.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json.dumps
    graph = next((file for file in files if file.kind.is_graph), None)
    told = {
        "title": trained.facts.get("name") or trained.weights.stem,
        "trained": trained,
        "files": {str(file.kind): file for file in files},
        "accuracy": _accuracy(trained.facts),
        "settings": _settings(trained),
        "facts": {**dict.fromkeys(_FACTS), **trained.facts},
        "data": _data(trained.facts),
        "protocol": _protocol(trained.facts),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "contract": None if graph is None else contract(graph.takes or Input.UINT8, len(trained.classes)),
        "takes": None if graph is None else graph.takes,
        "compared": compared,
        "tolerance": tolerance,
        "allow": list(said.allow),
        "versions": _versions(files),
    }
    path = folder / NAME
    with replacing(path) as file:
        file.write(environment.get_template(f"{NAME}.j2").render(told))
    return path


def _accuracy(facts: Mapping[str, Any]) -> str | None:
    """The test accuracy with its Wilson interval; None where nothing says one."""
    accuracy, images = facts.get("test/acc"), facts.get("test_size")
    if accuracy is None or not 0 <= accuracy <= 1:
        return None
    if not images or images < 1:
        return f"{accuracy:.2%}"
    low, high = wilson_interval(round(accuracy * images), images)
    return f"{accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}, {images:,} images)"


def _data(facts: Mapping[str, Any]) -> str | None:
    option = (facts.get("options") or {}).get("data")
    return None if option is None else data_name(str(option))


def _protocol(facts: Mapping[str, Any]) -> str | None:
    name = facts.get("protocol")
    return None if name is None else f"{name}: {protocol_words(name)}"


def _settings(trained: Trained) -> dict[str, str]:
    """How it was trained, as a command line would have it: an option and what it sets; no paths."""
    options = {name: str(value) for name, value in (trained.facts.get("options") or {}).items() if value is not None}
    config = {} if trained.config is None else resolved(trained.config)
    settings = {}
    for group in ("loss", "optimizer", "scheduler", "averaging", "augment"):
        if group in options:
            settings[group] = f"{options[group]} {_values(config.get(group))}".strip()
    for name in ("epochs", "batch_size", "l1", "grad_clip", "seed"):
        if name in config:
            settings[name] = str(config[name])
    return {**settings, **({"precision": str(trained.facts["precision"])} if "precision" in trained.facts else {})}


def _values(option: Any) -> str:
    if not isinstance(option, Mapping):
        return ""
    told = {name: value for name, value in option.items() if not str(name).startswith("_")}
    return f"({', '.join(f'{name}={value}' for name, value in told.items())})" if told else ""


def _versions(files: Sequence[Exported]) -> dict[str, str]:
    versions = {
        name: value for name, value in provenance.versions().items() if name in ("python", "cifar_lab", "torch")
    }
    if any(file.kind is Format.ONNX for file in files):
        import onnx
        import onnxruntime

        opset = next(one.version for one in onnx.load(_path(files, Format.ONNX)).opset_import if not one.domain)
        versions |= {"onnx opset": str(opset), "onnxruntime": onnxruntime.__version__}
    return versions


def _path(files: Sequence[Exported], kind: Format) -> Path:
    return next(file.path for file in files if file.kind is kind)
