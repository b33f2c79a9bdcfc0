"""The export formats. Does not import torch, because a command line is checked before slow imports."""

import importlib.util
from collections.abc import Iterable
from enum import StrEnum

from cifar_lab.machine.exit_codes import UsageError


class Format(StrEnum):
    """A file format: weights to load in Python (safetensors), or a graph from images to logits."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


class Input(StrEnum):
    """Input of a graph: uint8 `(N, 32, 32, 3)`, as image decoders return, or float32 `(N, 3, 32, 32)` from 0 to 1."""

    UINT8 = "uint8"
    FLOAT = "float"


_NEEDED = {Format.SAFETENSORS: ("safetensors",), Format.ONNX: ("onnx", "onnxscript", "onnxruntime")}


def check_installed(formats: Iterable[Format]) -> None:
    """Raise `ValueError` if a package that a format needs is missing."""
    for kind in formats:
        for package in _NEEDED.get(kind, ()):
            if importlib.util.find_spec(package) is None:
                raise UsageError(f"--format {kind} needs {package}: pip install 'cifar-lab[export]'")
