"""The bytes of each kind of file."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cifar_lab.export.graph import Deployable, as_taken, contract
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.subject import description
from cifar_lab.machine import provenance
from cifar_lab.trained import Trained
from cifar_lab.trained.description import KEY

# Where a file of torch.export holds the description.
METADATA_FILE = f"{KEY}.json"


def encode(kind: Format, trained: Trained, takes: Input) -> bytes:
    """A file's content.

    Args:
        kind: Of file.
        trained: In float32, on the CPU.
        takes: What a graph takes; of no meaning to the others.

    Raises:
        Exception: What torch's exporter raises where it cannot follow the network.
    """
    encoders: dict[Format, Callable[[Trained, Input], bytes]] = {
        Format.SAFETENSORS: _safetensors,
        Format.ONNX: _onnx,
        Format.TORCH_EXPORT: _torch_export,
        Format.WEIGHTS: _weights,
    }
    with _quiet():
        return encoders[kind](trained, takes)


def state_of(trained: Trained) -> dict[str, Tensor]:
    """The network's weights by name, in its order, contiguous."""
    return {name: value.detach().contiguous() for name, value in trained.model.state_dict().items()}


def _weights(trained: Trained, takes: Input) -> bytes:
    buffer = io.BytesIO()
    torch.save(state_of(trained), buffer)
    return buffer.getvalue()


def _safetensors(trained: Trained, takes: Input) -> bytes:
    from safetensors.torch import save

    # Each with memory of its own: safetensors refuses tensors that share some, as tied weights do.
    state = {name: value.clone() for name, value in state_of(trained).items()}
    return save(state, {"format": "pt", KEY: _description(trained)})


def _onnx(trained: Trained, takes: Input) -> bytes:
    graph, examples, shapes = _traceable(trained, takes)
    program = torch.onnx.export(
        graph,
        examples,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph.all_nodes():  # where the source lies on this machine, and what torch called it
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    told = contract(takes, len(trained.classes))
    program.model.metadata_props[KEY] = _description(trained, **told)
    program.model.doc_string = f"images {told['input']} to logits {told['output']}"
    return program.model_proto.SerializeToString()


def _torch_export(trained: Trained, takes: Input) -> bytes:
    graph, examples, shapes = _traceable(trained, takes)
    program = torch.export.export(graph, examples, dynamic_shapes=shapes)
    for node in program.graph.nodes:  # where the source lies on this machine
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    told = _description(trained, **contract(takes, len(trained.classes)))
    torch.export.save(program, buffer, extra_files={METADATA_FILE: told})
    return buffer.getvalue()


def _traceable(trained: Trained, takes: Input) -> tuple[Deployable, tuple[Tensor], tuple[dict[int, Any]]]:
    """A graph, images to follow it with, and which of their sizes is free."""
    graph = Deployable(trained.model, trained.mean, trained.std, takes)
    # Two images, as torch takes a size of one for one that never varies.
    images = as_taken(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), takes)
    return graph, (images,), ({0: torch.export.Dim("batch", min=1)},)


def _description(trained: Trained, **more: Any) -> str:
    return description(trained).text(versions=provenance.versions(), **more)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters tell of themselves, which nobody at a command line can mend."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
