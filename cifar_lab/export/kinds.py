"""What can be exported, known without torch: a command line is checked before anything heavy is imported."""

import importlib.util
from collections.abc import Iterable
from enum import StrEnum


class Format(StrEnum):
    """A kind of file."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"
    WEIGHTS = "weights"

    @property
    def is_graph(self) -> bool:
        """Whether it computes, from images to logits; the others are weights for a network in Python."""
        return self in (Format.ONNX, Format.TORCH_EXPORT)


class Input(StrEnum):
    """What a graph takes: uint8 `(N, 32, 32, 3)`, as decoders give it, or float32 `(N, 3, 32, 32)` from 0 to 1."""

    UINT8 = "uint8"
    FLOAT = "float"


_NEEDED = {Format.SAFETENSORS: ("safetensors",), Format.ONNX: ("onnx", "onnxscript", "onnxruntime")}


def check_installed(formats: Iterable[Format]) -> None:
    """Raises `ValueError` where a package that a format needs is missing."""
    for kind in formats:
        for package in _NEEDED.get(kind, ()):
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"--format {kind} needs {package}: pip install 'cifar-lab[export]'")
