import os
import platform
import resource

import pytest
import torch

from cifar_lab.machine import hardware


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


@pytest.mark.parametrize(
    ("capabilities", "isa", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "", "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": True}, "AVX512_CORE_AMX", "bf16-mixed"),
        ({"bf16": True, "architecture": "aarch64"}, "", "bf16-mixed"),
        ({"amx_bf16": True}, "avx2", "32-true"),
        ({"avx2": True, "avx512_f": True, "amx_bf16": False, "avx512_bf16": False}, "", "32-true"),
        ({}, "", "32-true"),
    ],
)
def test_a_cpu_trains_in_bf16_only_if_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], isa: str, precision: str
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert hardware.native_precision("cpu", capabilities) == precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_trains_in_bf16_only_if_it_is_native_even_under_an_older_torch(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert hardware.native_precision("cuda") == precision
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert hardware.native_precision("cpu") == precision


def test_explicit_settings_win_over_the_hardware_and_apples_gpus_train_in_contiguous_float32() -> None:
    assert hardware.choose("mps") == hardware.Native("mps", "32-true", torch.contiguous_format)
    assert hardware.choose("cpu", "32-true", "contiguous") == hardware.Native("cpu", "32-true", torch.contiguous_format)
    assert hardware.choose("cpu", 64).precision == "64"
    assert hardware.choose("cpu").memory_format == torch.channels_last
    with pytest.raises(ValueError, match=r"memory_format=nhwc.*channels_last"):
        hardware.choose("cpu", memory_format="nhwc")


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware.training_device("auto") == device
    assert hardware.training_device("cpu") == "cpu"


def test_the_machine_is_described_in_plain_values() -> None:
    description = hardware.describe("cpu")
    assert description["threads"] == torch.get_num_threads()
    assert description["device_name"]
    assert hardware.peak_memory_bytes("cpu") > 50 * 2**20  # torch alone takes more


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_kept_memory_is_not_mapped_again() -> None:
    assert hardware.keep_freed_memory("cpu")
    for step in range(70):  # fifty tensors of 36 MiB, each freed before the next; the heap grows at first
        if step == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(9 * 2**20)
    mapped = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before  # in pages
    assert mapped < 50 * (36 << 20) / os.sysconf("SC_PAGE_SIZE") / 10  # the heap grows now and then


def test_memory_is_left_to_the_allocators_of_other_devices_and_c_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hardware.keep_freed_memory("cuda")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: object())
    assert not hardware.keep_freed_memory("cpu")
