"""Networks compiled by `torch.compile`, whose import waits until one is."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


def check_compiler(device: str) -> None:
    """Refuse to compile where torch finds nothing to compile with.

    Args:
        device: `cpu`, `cuda` or `mps`.

    Raises:
        ValueError: A CPU without a C++ compiler, or a GPU without Triton.
    """
    if device == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise ValueError(
                "compile=true needs a C++ compiler and there is none; install g++, name one in CXX, "
                "or leave compile=true out"
            ) from None
    elif device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ValueError("compile=true needs Triton, which is missing or does not support this GPU; leave it out")


@contextmanager
def compiled(network: nn.Module, cuda_graphs: bool = False) -> Iterator[None]:
    """Compile a network in place, its names unchanged, as long as it is trained and measured.

    Args:
        network: Is traced as its first batches come, once for each size of a batch, in training and in evaluation.
        cuda_graphs: Record its kernels as CUDA graphs.
    """
    # Not dynamic: the second size, the epoch's last batch, would else make one slower program for all sizes.
    network.compile(dynamic=False, mode="reduce-overhead" if cuda_graphs else None)
    try:
        yield
    finally:
        # What this network left counts towards the limit of programs for its class, and holds memory.
        torch.compiler.reset()


def uncompiled() -> AbstractContextManager[object]:
    """Compute with compiled networks as they were written."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
