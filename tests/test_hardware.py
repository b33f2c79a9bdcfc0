import platform
import subprocess
import sys

import pytest
import torch

from cifar_lab import hardware


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16-mixed"),
        ({"bf16": True, "architecture": "aarch64"}, "bf16-mixed"),
        ({"avx2": True, "avx512_f": True, "amx_bf16": False, "avx512_bf16": False}, "32-true"),
        ({"avx2": True}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_a_cpu_trains_in_bf16_only_where_it_has_the_instructions(capabilities: dict[str, bool], precision: str) -> None:
    assert hardware.native_precision("cpu", capabilities) == precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_trains_in_bf16_only_where_it_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(1) or native)
    assert hardware.native_precision("cuda") == precision
    assert asked


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_an_older_torch_is_asked_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert hardware.native_precision("cpu") == precision


def test_apples_gpus_train_in_float32_and_contiguous() -> None:
    assert hardware.native_precision("mps") == "32-true"
    assert hardware.native_memory_format("mps") == torch.contiguous_format


def test_what_is_said_wins_over_the_hardware() -> None:
    assert hardware.choose("cpu", "32-true", "contiguous") == hardware.Native("cpu", "32-true", torch.contiguous_format)
    assert hardware.choose("cpu", 64, "channels_last").precision == "64"
    assert hardware.choose("cpu").memory_format == torch.channels_last
    with pytest.raises(ValueError, match=r"memory_format=nhwc.*channels_last"):
        hardware.choose("cpu", memory_format="nhwc")


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware.training_device("auto") == device
    assert hardware.training_device("cpu") == "cpu"


def test_the_machine_is_described_in_plain_values() -> None:
    description = hardware.describe("cpu")
    assert description["threads"] == torch.get_num_threads()
    assert description["device_name"]
    assert hardware.peak_memory_bytes("cpu") > 50 * 2**20  # torch alone takes more


_FAULTS = """
import resource, sys, torch
from cifar_lab import hardware

if sys.argv[1] == "keep":
    assert hardware.keep_freed_memory("cpu")
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.LeakyReLU(0.1))
images = torch.randn(144, 3, 32, 32)  # in float32 what a layer makes of them takes 36 MiB
for step in range(33):  # now and then the heap still takes a block more
    if step == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layers(images).mean().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_memory_that_is_kept_is_not_mapped_again() -> None:
    def faults(word: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", _FAULTS, word], text=True))

    assert faults("keep") < faults("leave") / 10


def test_memory_is_left_to_the_allocators_of_other_devices_and_c_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hardware.keep_freed_memory("cuda")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: object())
    assert not hardware.keep_freed_memory("cpu")
