"""Encodes a network in each format."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lab.export.kinds import Format, Input
from cifar_lab.machine import hardware, provenance
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.trained import Trained
from cifar_lab.trained.files import KEY, Description


class Deployable(nn.Module):
    """A network with its normalisation, from decoded images to logits.

    Args:
        network: Maps normalised float32 images `(N, 3, 32, 32)` to logits; in evaluation mode, on the CPU.
        mean: Mean per channel of images from 0 to 1.
        std: Standard deviation per channel.
        takes: Input: uint8 images `(N, 32, 32, 3)`, or float32 images `(N, 3, 32, 32)` from 0 to 1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], takes: Input) -> None:
        super().__init__()
        self.network = network
        self.takes = takes
        # One multiply and one add, as for the run's own batches: x * scale + shift = (x / 255 - mean) / std.
        channels = torch.tensor(std).view(3, 1, 1)
        self.register_buffer("scale", 1 / (255 * channels if takes is Input.UINT8 else channels))
        self.register_buffer("shift", -torch.tensor(mean).view(3, 1, 1) / channels)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits `(N, num_classes)`."""
        if self.takes is Input.UINT8:
            images = images.permute(0, 3, 1, 2).to(torch.float32)
        return self.network(images * self.scale + self.shift)


def as_taken(pixels: Tensor, takes: Input) -> Tensor:
    """Convert uint8 images `(N, 32, 32, 3)` to a graph's input."""
    return pixels if takes is Input.UINT8 else (pixels.permute(0, 3, 1, 2).to(torch.float32) / 255).contiguous()


def contract(takes: Input, num_classes: int) -> dict[str, Any]:
    """Return a graph's input and output in plain values."""
    dtype, shape, high = ("uint8", [32, 32, 3], 255) if takes is Input.UINT8 else ("float32", [3, 32, 32], 1)
    return {
        "input": {"name": "images", "dtype": dtype, "shape": ["batch", *shape], "range": [0, high], "colours": "RGB"},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", num_classes]},
    }


def on_cpu(trained: Trained) -> Trained:
    """Copy a network to the CPU, in float32 and contiguous memory format.

    Raises:
        ValueError: The normalisation of the images is unknown.
    """
    if len(trained.mean) != 3 or len(trained.std) != 3:
        raise UsageError(f"the image normalisation of {trained.label} is unknown: its data has no mean and std")
    model = copy.deepcopy(trained.model).float().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return replace(trained, model=model.eval(), native=hardware.Native("cpu", "32-true", torch.contiguous_format))


def encode(kind: Format, trained: Trained, takes: Input) -> bytes:
    """Encode a network as the content of a file.

    Args:
        kind: Format of the file.
        trained: From `on_cpu`.
        takes: Input of a graph; ignored for safetensors.

    Raises:
        Exception: torch's exporter cannot trace the network.
    """
    if kind is Format.SAFETENSORS:
        from safetensors.torch import save

        # Clones, because safetensors refuses tensors that share memory, such as tied weights.
        state = {name: value.detach().contiguous().clone() for name, value in trained.model.state_dict().items()}
        return save(state, {"format": "pt", KEY: _description(trained)})
    graph = Deployable(trained.model, trained.mean, trained.std, takes)
    # Two images, because torch.export specialises on a batch size of one.
    images = as_taken(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), takes)
    interface = contract(takes, len(trained.classes))
    described = _description(trained, **interface)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with _quiet():
        if kind is Format.TORCH_EXPORT:
            return _torch_export(graph, images, shapes, described)
        words = f"images {interface['input']} to logits {interface['output']}"
        return _onnx(graph, images, shapes, described, words)


def _onnx(graph: nn.Module, images: Tensor, shapes: Any, described: str, words: str) -> bytes:
    names = {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(graph, (images,), **names, dynamic_shapes=shapes, dynamo=True, verbose=False)  # type: ignore[arg-type]
    assert program is not None
    for node in program.model.graph.all_nodes():  # removes paths of this machine's source, and torch's names
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    program.model.metadata_props[KEY] = described
    program.model.doc_string = words
    return program.model_proto.SerializeToString()


def _torch_export(graph: nn.Module, images: Tensor, shapes: Any, described: str) -> bytes:
    program = torch.export.export(graph, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:  # removes paths of this machine's source
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{KEY}.json": described})
    return buffer.getvalue()


def _description(trained: Trained, **more: Any) -> str:
    described = Description(
        model=dict(trained.making),
        architecture=trained.architecture,
        mean=[float(value) for value in trained.mean],
        std=[float(value) for value in trained.std],
        classes=list(trained.classes),
        names=list(trained.model.state_dict()),
        facts=dict(trained.facts),
    )
    return described.text(versions=provenance.versions(), **more)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporters, because a user cannot act on their warnings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
