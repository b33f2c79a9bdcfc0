"""This machine's hardware, and the precision and memory format that suit it."""

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

from cifar_lab.machine.exit_codes import UsageError

# Instructions that multiply bf16 matrices. Without any of them bf16 is emulated, ten to a hundred times slower.
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
# Values of ONEDNN_MAX_CPU_ISA, which limits oneDNN on x86, that exclude all these instructions.
_ISAS_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
# Input channels from which oneDNN's gradient of a strided 1x1 convolution is correct: the length of an AVX-512 vector,
# twice that of AVX2.
_SAFE_WIDTH = 16
# glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes: blocks up to 300 MiB are taken from the heap, which is kept.
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
        """Return a copy that is contiguous if the network has a `misgraded_layer`."""
        return replace(self, memory_format=safe_memory_format(model, self.memory_format))


def choose(accelerator: str = "auto", precision: str | int = "auto", memory_format: str = "auto") -> Native:
    """Return the choice for this hardware, with every `auto` replaced.

    Args:
        accelerator: Lightning's accelerator; `auto` is a GPU if there is one.
        precision: Lightning's precision; `auto` is the fastest that the device has instructions for.
        memory_format: `channels_last`, `contiguous`, or `auto`, the faster one for convolutions.

    Raises:
        ValueError: `memory_format` is unknown.
    """
    device = training_device(accelerator)
    formats = {
        "auto": torch.contiguous_format if device == "mps" else torch.channels_last,  # MPS lacks channels_last
        "channels_last": torch.channels_last,
        "contiguous": torch.contiguous_format,
    }
    if memory_format not in formats:
        raise UsageError(f"trainer.memory_format={memory_format} is unknown; one of {', '.join(formats)}")
    settled = native_precision(device) if precision == "auto" else str(precision)
    return Native(device, settled, formats[memory_format])


def training_device(accelerator: str) -> str:
    """Return the device type, `cpu`, `cuda` or `mps`, of Lightning's `accelerator`."""
    if accelerator not in ("auto", "gpu"):
        return accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_count(accelerator: str) -> int:
    """Return the number of devices of Lightning's `accelerator`; the CPU counts as one, and so does MPS."""
    return torch.cuda.device_count() if training_device(accelerator) == "cuda" else 1


def native_precision(device: str, cpu_capabilities: Mapping[str, object] | None = None) -> str:
    """Return `bf16-mixed` if the device has bf16 instructions that the environment does not disable, else `32-true`.

    Args:
        device: `cpu`, `cuda` or `mps`.
        cpu_capabilities: Instruction sets by name, as from `torch.cpu.get_capabilities`; None means this machine's.
    """
    native = False
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "cpu" and os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in _ISAS_WITHOUT_BF16:
        capabilities = _cpu_capabilities() if cpu_capabilities is None else cpu_capabilities
        native = any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS)
    return "bf16-mixed" if native else "32-true"


def safe_memory_format(model: nn.Module, memory_format: torch.memory_format) -> torch.memory_format:
    """Return the given memory format, or contiguous if the network has a `misgraded_layer`."""
    return memory_format if misgraded_layer(model) is None else torch.contiguous_format


def misgraded_layer(model: nn.Module) -> str | None:
    """Describe the first layer whose weight gradient oneDNN gets wrong in channels_last on a CPU; None without one.

    It is a 1x1 convolution with a stride above 1 and fewer than 16 input channels per group. oneDNN's AVX-512 kernels
    then write past their buffer, and its AVX2 kernels do so below 8 channels: training hangs, crashes, or learns from a
    wrong gradient (oneDNN issue 6035, seen in torch 2.14). Contiguous memory is always correct. Convolutions called as
    functions, without an `nn.Conv2d`, are not found.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d) or max(layer.kernel_size) > 1 or max(layer.stride) == 1:
            continue
        width = layer.in_channels // layer.groups
        if width < _SAFE_WIDTH:
            return f"{name or 'the network'}, a 1x1 convolution of {width} channels with stride {max(layer.stride)}"
    return None


def contiguous_because(model: nn.Module) -> str:
    """Explain in one line why a network runs in contiguous memory."""
    return (
        f"the network runs in contiguous memory: {misgraded_layer(model)}, can get a wrong gradient in channels_last "
        "(oneDNN issue 6035)"
    )


def keep_freed_memory(device: str) -> bool:
    """Make the C library keep freed memory for the tensors of the next step; return whether that succeeded.

    glibc returns freed blocks of more than 32 MB, such as a batch's activations in float32, to the system, and the next
    step waits for their pages to be mapped and zeroed again. Other C libraries lack this setting, and torch manages GPU
    memory with its own allocator.
    """
    if device != "cpu":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in _KEEP_FREED_MEMORY)


def describe(device: str) -> dict[str, object]:
    """Return the names of processor and accelerator, cores, threads and operating system, in plain values."""
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def peak_memory_bytes(device: str) -> int:
    """Return the peak memory, of a GPU since torch's last reset, or else of this process since its start."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_capabilities() -> Mapping[str, object]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    # torch before 2.12
    return {"amx_bf16": torch.cpu._is_amx_tile_supported(), "avx512_bf16": torch.cpu._is_avx512_bf16_supported()}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
