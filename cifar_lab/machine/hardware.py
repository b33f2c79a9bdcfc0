"""What this machine does natively, and what it is."""

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

# Instructions that multiply bf16 matrices. Without any of them bf16 is emulated, ten to a hundred times slower.
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")

# Values of ONEDNN_MAX_CPU_ISA, which limits oneDNN on x86, that leave it none of these.
_ISAS_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")

# Input channels from which on oneDNN's gradient of a strided 1x1 convolution is right: as many as a vector of AVX-512
# holds, twice as many as one of AVX2.
_SAFE_WIDTH = 16

# glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes: blocks up to 300 MiB come from the heap, which stays.
_KEEP_FREED_MEMORY = ((-3, 300 << 20), (-1, (1 << 31) - 1))


@dataclass(frozen=True)
class Native:
    """How a run computes: `device` (`cpu`, `cuda`, `mps`), Lightning's `precision`, and the images' layout."""

    device: str
    precision: str
    memory_format: torch.memory_format

    @property
    def layout(self) -> str:
        """The memory format as `trainer.memory_format` names it."""
        return str(self.memory_format).removeprefix("torch.").removesuffix("_format")

    def suited_to(self, model: nn.Module) -> "Native":
        """The same, in contiguous memory if oneDNN would get a gradient of the network wrong in channels_last."""
        return replace(self, memory_format=safe_memory_format(model, self.memory_format))


def choose(accelerator: str = "auto", precision: str | int = "auto", memory_format: str = "auto") -> Native:
    """Settle what is left to the hardware.

    Args:
        accelerator: Lightning's; `auto` is a GPU where there is one.
        precision: Lightning's; `auto` is what the device has instructions for.
        memory_format: `channels_last`, `contiguous`, or `auto`: in which convolutions are fastest.

    Raises:
        ValueError: `memory_format` is none of these.
    """
    device = training_device(accelerator)
    formats = {
        "auto": native_memory_format(device),
        "channels_last": torch.channels_last,
        "contiguous": torch.contiguous_format,
    }
    if memory_format not in formats:
        raise ValueError(f"trainer.memory_format={memory_format} is unknown; one of {', '.join(formats)}")
    settled = native_precision(device) if precision == "auto" else str(precision)
    return Native(device, settled, formats[memory_format])


def training_device(accelerator: str) -> str:
    """The device type, `cpu`, `cuda` or `mps`, that Lightning's `accelerator` will train on."""
    if accelerator in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
        return "cpu"
    return accelerator


def device_count(accelerator: str) -> int:
    """How many devices of the kind that Lightning's `accelerator` will train on there are; processors count as one."""
    return torch.cuda.device_count() if training_device(accelerator) == "cuda" else 1


def native_precision(device: str, cpu_capabilities: Mapping[str, object] | None = None) -> str:
    """Lightning's name of the fastest precision that the device has instructions for.

    Args:
        device: `cpu`, `cuda` or `mps`.
        cpu_capabilities: Instruction sets by name, as from `torch.cpu.get_capabilities`; None asks this machine.

    Returns:
        `bf16-mixed` where bf16 is native, and the environment does not keep oneDNN from it, else `32-true`.
    """
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "cpu":
        capabilities = _cpu_capabilities() if cpu_capabilities is None else cpu_capabilities
        native = any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) and not _is_limited()
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def native_memory_format(device: str) -> torch.memory_format:
    """The layout in which convolutions are fastest: channels last, but for Apple's GPUs, which lack it."""
    return torch.contiguous_format if device == "mps" else torch.channels_last


def safe_memory_format(model: nn.Module, memory_format: torch.memory_format) -> torch.memory_format:
    """The memory format to run a network in: the given one, or contiguous if the network has a `misgraded_layer`.

    Args:
        model: The network.
        memory_format: The one that it would have otherwise.
    """
    return memory_format if misgraded_layer(model) is None else torch.contiguous_format


def misgraded_layer(model: nn.Module) -> str | None:
    """The first layer of a network whose weight gradient oneDNN gets wrong in channels_last on a CPU.

    That is a 1x1 convolution with a stride above 1 and fewer than 16 input channels (of each group). There oneDNN's
    kernels for AVX-512 write past their buffer, and those for AVX2 with fewer than 8: training hangs, crashes, or
    learns from a wrong gradient (oneDNN issue 6035, seen in torch 2.14). Contiguous memory is right everywhere.
    Convolutions that a module calls as a function, without an `nn.Conv2d`, are not seen.

    Returns:
        Its name within the network, its kind and its shape in a few words; None if there is none.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d) or max(layer.kernel_size) > 1 or max(layer.stride) == 1:
            continue
        width = layer.in_channels // layer.groups
        if width < _SAFE_WIDTH:
            return f"{name or 'the network'}, a 1x1 convolution of {width} channels with stride {max(layer.stride)}"
    return None


def contiguous_because(model: nn.Module) -> str:
    """Why a network runs in contiguous memory, in a line for the user."""
    return (
        f"the network runs in contiguous memory: {misgraded_layer(model)}, can get a wrong gradient in channels_last "
        "(oneDNN issue 6035)"
    )


def keep_freed_memory(device: str) -> bool:
    """Let the C library keep what tensors have freed for the tensors of the next step.

    glibc gives blocks of more than 32 MB, which a batch's activations are in float32, back to the system as they are
    freed; the next step then waits for their pages to be mapped and zeroed again. The process keeps what it took once.

    Args:
        device: On which tensors live; a GPU's memory has torch's own allocator.

    Returns:
        Whether the C library does so from now on; only glibc's can.
    """
    if device != "cpu":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in _KEEP_FREED_MEMORY)


def describe(device: str) -> dict[str, object]:
    """The machine, in plain values: names of processor and accelerator, cores, threads, operating system."""
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def reset_peak_memory(device: str) -> None:
    """Forget what earlier runs of this process took of the GPU; a CPU's peak cannot be forgotten."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes(device: str) -> int:
    """The most memory taken: of the GPU by torch since `reset_peak_memory`, else by this process since its start."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _is_limited() -> bool:
    """Whether the environment keeps oneDNN, which does the multiplying, to instructions without bf16."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _ISAS_WITHOUT_BF16


def _cpu_capabilities() -> Mapping[str, object]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    # Before torch 2.12 only these two questions could be asked.
    return {
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
