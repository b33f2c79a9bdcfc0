"""Compile networks by `torch.compile`, which is imported at first use."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from cifar_lab.machine.exit_codes import UsageError


def check_compiler(device: str) -> None:
    """Check that torch can compile for `cpu`, `cuda` or `mps`.

    Raises:
        ValueError: There is no C++ compiler for a CPU, or no Triton for a GPU.
    """
    if device == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise UsageError(
                "compile=true needs a C++ compiler, and none was found; install g++, name one in CXX, "
                "or leave compile=true out"
            ) from None
    elif device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UsageError("compile=true needs Triton, which is missing or does not support this GPU; leave it out")


@contextmanager
def compiled(network: nn.Module, cuda_graphs: bool = False) -> Iterator[None]:
    """Compile a network in place within the context; the names of its parameters stay the same.

    Args:
        network: The network, traced at its first batch of each size, in training and in evaluation.
        cuda_graphs: Record its kernels as CUDA graphs.
    """
    # Not dynamic: otherwise a second size, the epoch's last batch, triggers one slower program for all sizes.
    network.compile(dynamic=False, mode="reduce-overhead" if cuda_graphs else None)
    try:
        yield
    finally:
        # The network's programs hold memory and count towards the limit for its class.
        torch.compiler.reset()


def uncompiled() -> AbstractContextManager[object]:
    """Run compiled networks eagerly within the context."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
