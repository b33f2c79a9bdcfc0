"""Each kind of layer has the gradient of float64, where `hardware.misgraded_layer` does not name it.

The search takes minutes, in processes that may hang or crash.
"""

import itertools
import platform

import pytest
import torch

from cifar_lab.machine import hardware
from tests.machine.layer_gradients import Case, convolutions, faults, others, pointwise

pytestmark = pytest.mark.slow
LAYERS = ("Linear", "NoSuchLayer")
PRECISIONS = ["float32"] + ["bfloat16"] * (hardware.native_precision("cpu") == "bf16-mixed")


def _is_avoided(case: Case) -> bool:
    is_last = case.memory_format == "channels_last"
    return is_last and hardware.misgraded_layer(case.make()) is not None


def _is_known(case: Case, precision: str) -> bool:
    """Whether AMX leaves a bf16 output unwritten: of a dilated, strided 1xk convolution, one pixel wide."""
    if case.layer != "Conv2d" or precision != "bfloat16":
        return False
    layer = case.make()
    (height, width), dilation, stride = layer.kernel_size, layer.dilation[1], layer.stride[1]
    pixels = (case.shape[3] + 2 * layer.padding[1] - dilation * (width - 1) - 1) // stride + 1
    return height == 1 and min(dilation, stride) > 1 and pixels == 1


def _check(cases: list[Case], precision: str, threads: int, isa: str | None) -> None:
    cases = [case for case in cases if not _is_avoided(case) and not _is_known(case, precision)]
    found = faults(cases, precision, threads, isa)
    assert not found, [(cases[number], fault) for number, fault in found.items()]


@pytest.mark.parametrize("isa", [None, "AVX2"])
@pytest.mark.parametrize("threads", [1, 2])
def test_strided_1x1_convolutions_of_sixteen_and_more_channels_are_right(threads: int, isa: str | None) -> None:
    cases = pointwise((16, 17, 20, 24, 31, 32, 33), (1, 5, 8, 9, 16, 20), (2, 3, 4), (8, 16, 32))
    _check(cases, "float32", threads, isa)


@pytest.mark.parametrize(("precision", "isa"), [*itertools.product(PRECISIONS, [None]), ("float32", "AVX2")])
def test_convolutions_of_any_shape_are_right(precision: str, isa: str | None) -> None:
    _check([*convolutions(1_000), *pointwise((16, 17, 20, 33), (9, 16), (2, 3), (16, 32))], precision, 2, isa)


@pytest.mark.parametrize("isa", [None, "AVX2"])
def test_other_layers_are_right(isa: str | None) -> None:
    _check(list(others()), "float32", 2, isa)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's fault is in its kernels for x86")
@pytest.mark.parametrize(("isa", "channels"), [("AVX2", (1, 3, 4)), (None, (8, 12))])
def test_the_fault_that_is_avoided_is_still_there(isa: str | None, channels: tuple[int, ...]) -> None:
    """If this fails, `hardware.misgraded_layer` can go."""
    if isa is None and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("vectors of sixteen numbers are AVX-512's")
    assert faults(pointwise(channels, (16,), (2,), (16, 32)), threads=2, isa=isa)


def test_a_layer_that_ends_its_process_is_told_from_those_around_it() -> None:
    linear, missing = (Case(name, {"in_features": 3, "out_features": 2}, (4, 3), "contiguous") for name in LAYERS)
    assert list(faults([linear, missing, linear])) == [1]
