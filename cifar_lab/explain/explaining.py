"""Figures and tables that explain a trained network."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar_lab.explain import figures
from cifar_lab.explain.activations import LayerActivations, measure, totals
from cifar_lab.explain.gradcam import first_filters, grad_cam, map_layer
from cifar_lab.runs.files import write_figure, write_table
from cifar_lab.terminal.progress import with_progress
from cifar_lab.trained import Trained, answer, confident_mistakes

_BATCH_SIZE = 100  # small, because hooks double the memory use


@dataclass(frozen=True)
class Example:
    """An image and its most probable class."""

    name: str  # file name, or index in the test set
    pixels: Tensor  # uint8 `(32, 32, 3)`
    label: int  # index of the predicted class
    predicted: str  # name of the predicted class
    probability: float  # its probability, from 0 to 1
    true: str | None = None  # name of the true class, if known


@dataclass
class Explained:
    """Results and written files."""

    network: str  # label of the network
    examples: Sequence[Example] = ()  # images of the Grad-CAM maps
    images: int = 0  # number of training images behind the activations; 0 if they are left out
    layers: Sequence[LayerActivations] = ()  # activation layers
    # rows of `dead_units.csv`: this network, then those it is compared with
    networks: Sequence[dict[str, Any]] = ()
    files: list[Path] = field(default_factory=list)  # tables and figures


def of_files(trained: Trained, read: Sequence[tuple[Path, np.ndarray]]) -> list[Example]:
    """Classify image files, each with its uint8 `(32, 32, 3)`."""
    if not read:
        return []
    pixels = torch.from_numpy(np.stack([image for _, image in read]))
    return _examples(trained, [str(path) for path, _ in read], pixels, trained.logits_of_pixels(pixels).cpu())


def mistaken(trained: Trained, count: int) -> list[Example]:
    """Return at most `count` test images, those with the most confident wrong predictions first.

    Raises:
        DataError: The test set is missing.
    """
    loader = trained.datamodule().test_dataloader()
    answers = answer(trained, with_progress(loader, f"{trained.label}: test"))
    chosen = confident_mistakes(answers, count)
    pixels, logits, labels = loader.data.images.cpu()[chosen], answers.logits[chosen].double(), answers.labels[chosen]
    return _examples(trained, list(map(str, chosen.tolist())), pixels, logits, labels.tolist())


def _examples(
    trained: Trained, names: Sequence[str], pixels: Tensor, logits: Tensor, true: Sequence[int] | None = None
) -> list[Example]:
    shares, labels = (each.tolist() for each in logits.softmax(dim=1).max(dim=1))
    classes = trained.class_names(logits.shape[1])
    of_images = [None] * len(names) if true is None else [classes[label] for label in true]
    return [
        Example(name, image, label, classes[label], share, own)
        for name, image, label, share, own in zip(names, pixels, labels, shares, of_images, strict=True)
    ]


def explain_examples(trained: Trained, examples: Sequence[Example], layer: str | None, folder: Path) -> list[Path]:
    """Write `gradcam.png`: at least one image, each with the evidence for its predicted class.

    Computed in float32. `layer` is passed to `map_layer`.

    Raises:
        ValueError: See `grad_cam` and `map_layer`.
    """
    model = _in_float32(trained)
    name, module = map_layer(model, layer)
    images = _placed(trained, torch.stack([example.pixels for example in examples]))
    labels = torch.tensor([example.label for example in examples], device=images.device)
    heats = grad_cam(model, (name, module), images, labels).cpu()
    overlaid = [
        (
            example.pixels.numpy(),
            heat.numpy(),
            Path(example.name).name if example.true is None else f"true: {example.true}",
            f"predicted: {example.predicted}, {example.probability:.1%}",
        )
        for example, heat in zip(examples, heats, strict=True)
    ]
    title = f"{Path(trained.label).name}: Grad-CAM at {name}, each map from 0 to its own maximum"
    return write_figure(lambda: figures.grad_cams(overlaid, title), folder / "gradcam.png")


def explain_filters(trained: Trained, folder: Path) -> list[Path] | None:
    """Write `filters.png` of the first convolution; return None if its input is not red, green and blue."""
    weights = first_filters(trained.model)
    if weights is None:
        return None
    title = f"{Path(trained.label).name}: the {len(weights)} filters of the first convolution"
    filters = weights.float().cpu().numpy()
    return write_figure(lambda: figures.filters(filters, title), folder / "filters.png")


def measured(
    trained: Trained, count: int, complain: Callable[[str], None]
) -> tuple[list[LayerActivations], dict[str, Any]]:
    """Measure activation layers on unaugmented training images, because only their gradients could revive a unit.

    Args:
        trained: The network, computed in float32.
        count: Number of images, taken from a shuffled epoch; all if there are fewer.
        complain: Called with a message for each layer that `measure` leaves out.

    Returns:
        The layers, and the network's row of `dead_units.csv`.

    Raises:
        DataError: The images are missing.
    """
    loader = trained.datamodule().train_dataloader()
    chosen = loader.order(0)[:count]

    def batches() -> Iterator[Tensor]:
        for part in with_progress(chosen.split(_BATCH_SIZE), f"{trained.label}: activations"):
            yield _placed(trained, loader.data.images[part])

    layers = measure(
        _in_float32(trained), batches(), _activation(trained.making), lambda text: complain(f"{trained.label}: {text}")
    )
    row = {"network": trained.label, "fingerprint": trained.facts.get("fingerprint"), "images": len(chosen)}
    return layers, {**row, **totals(layers)}


def explain_units(explained: Explained, folder: Path) -> None:
    """Write `activations.csv` and `activations.png`, a row per layer, and `dead_units.csv`, a row per network."""
    rows = [layer.row() for layer in explained.layers]
    title = f"{Path(explained.network).name}, over {explained.images:,} training images"
    explained.files += [
        write_table(rows, folder / "activations.csv"),
        *write_figure(lambda: figures.activations(rows, title), folder / "activations.png"),
        write_table(explained.networks, folder / "dead_units.csv"),
    ]


def _in_float32(trained: Trained) -> nn.Module:
    """Return the network, or a float32 copy if a precision such as `bf16-true` has changed its weights."""
    if all(value.dtype == torch.float32 for value in trained.model.parameters()):
        return trained.model
    return copy.deepcopy(trained.model).float()


def _placed(trained: Trained, pixels: Tensor) -> Tensor:
    images = trained.normalised(pixels).to(trained.native.device)
    return images.to(memory_format=trained.native.memory_format)


def _activation(making: Mapping[str, Any]) -> str | None:
    """Return the class name of the network's activations, which may be a component of the user."""
    option = making.get("activation")
    target = option.get("_target_") if isinstance(option, Mapping) else None
    return str(target).rpartition(".")[2] if target else None
