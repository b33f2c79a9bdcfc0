"""From a trained network to figures and tables of it."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab.explain import figures
from cifar_lab.explain.activations import LayerActivations, measure, totals
from cifar_lab.explain.examples import Example
from cifar_lab.explain.gradcam import first_filters, grad_cam, map_layer
from cifar_lab.runs.outputs import write_figure, write_table
from cifar_lab.trained import Trained

_BATCH_SIZE = 100  # of what a hook doubles


def explain_examples(trained: Trained, examples: Sequence[Example], layer: str | None, folder: Path) -> Path:
    """Write `gradcam.png`: each image, and what speaks for the class that it is taken for.

    Args:
        trained: The network; it computes in float32 here, whatever it was trained in.
        examples: At least one.
        layer: Of `map_layer`.
        folder: Where the figure goes.

    Raises:
        ValueError: As `grad_cam` and `map_layer`.
    """
    model = _in_float32(trained)
    name, module = map_layer(model, layer)
    images = _placed(trained, torch.stack([example.pixels for example in examples]))
    labels = torch.tensor([example.label for example in examples], device=images.device)
    heats = grad_cam(model, (name, module), images, labels).cpu()
    overlaid = [
        figures.Overlaid(
            pixels=example.pixels.numpy(),
            heat=heat.numpy(),
            above=Path(example.name).name if example.true is None else f"is {example.true}",
            beside=f"taken for {example.predicted}, {example.probability:.1%}",
        )
        for example, heat in zip(examples, heats, strict=True)
    ]
    title = f"{_name(trained)}: Grad-CAM at {name}, each map from 0 to its own maximum"
    return write_figure(figures.grad_cams(overlaid, title), folder / "gradcam.png")


def explain_filters(trained: Trained, folder: Path) -> Path | None:
    """Write `filters.png`: those of the first convolution; None where it does not look at red, green and blue."""
    weights = first_filters(trained.model)
    if weights is None:
        return None
    title = f"{_name(trained)}: the {len(weights)} filters of the first convolution"
    return write_figure(figures.filters(weights.float().cpu().numpy(), title), folder / "filters.png")


def measured(trained: Trained, count: int, complain: Callable[[str], None]) -> tuple[list[LayerActivations], int]:
    """Its activation layers over training images, as they are without augmentation: whose gradient could revive a unit.

    Args:
        trained: The network; it computes in float32 here.
        count: Of images, the first of a shuffled epoch; all, where there are fewer.
        complain: Told of each layer that `measure` leaves out, and of which network.

    Returns:
        The layers, and over how many images.

    Raises:
        DataError: The images are not there.
    """
    loader = trained.datamodule().train_dataloader()
    chosen = loader.order(0)[:count]

    def batches() -> Iterator[Tensor]:
        for part in chosen.split(_BATCH_SIZE):
            yield _placed(trained, loader.data.images[part])

    def of_network(text: str) -> None:
        complain(f"{trained.label}: {text}")

    return measure(_in_float32(trained), batches(), _activation(trained.making), of_network), len(chosen)


def network_row(trained: Trained, layers: Sequence[LayerActivations], images: int) -> dict[str, Any]:
    """A network's row of `dead_units.csv`: of which run, over how many images, and `totals` of its layers."""
    told = {"network": trained.label, "fingerprint": trained.facts.get("fingerprint"), "images": images}
    return {**told, **totals(layers)}


def explain_units(
    trained: Trained,
    layers: Sequence[LayerActivations],
    images: int,
    others: Sequence[dict[str, Any]],
    folder: Path,
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Write `activations.csv` and `activations.png`, layer by layer, and `dead_units.csv`, network by network.

    Args:
        trained: The network.
        layers: At least one.
        images: Over how many.
        others: `network_row` of the networks that it is compared with.
        folder: Where they go.

    Returns:
        The files, and the rows of `dead_units.csv`.
    """
    rows = [layer.row() for layer in layers]
    title = f"{_name(trained)}, over {images:,} training images"
    networks = [network_row(trained, layers, images), *others]
    files = [
        write_table(rows, folder / "activations.csv"),
        write_figure(figures.activations(rows, title), folder / "activations.png"),
        write_table(networks, folder / "dead_units.csv"),
    ]
    return files, networks


def _name(trained: Trained) -> str:
    return Path(trained.label).name


def _in_float32(trained: Trained) -> nn.Module:
    """The network itself, or a copy where a precision such as `bf16-true` has changed its weights."""
    if all(value.dtype == torch.float32 for value in trained.model.parameters()):
        return trained.model
    return copy.deepcopy(trained.model).float()


def _placed(trained: Trained, pixels: Tensor) -> Tensor:
    images = trained.normalised(pixels).to(trained.native.device)
    return images.to(memory_format=trained.native.memory_format)


def _activation(making: Mapping[str, Any]) -> str | None:
    """The name of the class that the network's activations are made of, which may be nobody's but the user's."""
    option = making.get("activation")
    target = option.get("_target_") if isinstance(option, Mapping) else None
    return str(target).rpartition(".")[2] if target else None
