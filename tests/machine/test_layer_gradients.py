"""Each kind of layer has float64's gradient unless `hardware.misgraded_layer` names it.

oneDNN's kernels write past their buffers for some shapes, so the cases run in processes that may hang or crash. The
search takes minutes. As a program, this module runs the cases that it reads, and prints each number before it runs it.
"""

import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.machine import hardware

pytestmark = pytest.mark.slow
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# Relative errors: 1e-6 for a right gradient in float32 and 5e-3 in bf16; wrong gradients were off by 0.02 or more.
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}
CPU_SECONDS = 5  # limit per case, which takes milliseconds; a hanging case keeps all cores busy
PRECISIONS = ["float32"] + ["bfloat16"] * (hardware.native_precision("cpu") == "bf16-mixed")


class Case(NamedTuple):
    """A layer of `torch.nn` with its arguments, the shape of its input, and the memory format of both."""

    layer: str
    arguments: Mapping[str, Any]
    shape: Sequence[int]
    memory_format: str

    def make(self) -> nn.Module:
        """Create the layer in float32."""
        arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in self.arguments.items()}
        layer: nn.Module = getattr(nn, self.layer)(**arguments)
        return layer


def pointwise(*choices: Sequence[int]) -> list[Case]:
    """1x1 convolutions with every combination of width, number of outputs, stride and size."""
    cases = []
    for width, output, stride, size in itertools.product(*choices):
        arguments = {"in_channels": width, "out_channels": output, "kernel_size": 1, "stride": stride}
        cases.append(Case("Conv2d", arguments, (5, width, size, size), "channels_last"))
    return cases


def convolutions(count: int, seed: int = 0) -> Iterator[Case]:
    """Convolutions with random, unusual widths, kernels, strides and groups."""
    draw = random.Random(seed)
    for _ in range(count):
        groups = draw.choice([1, 1, 2, 3, 4, 8])
        width, output = (groups * draw.choice([1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17]) for _ in range(2))
        arguments = {
            "in_channels": width,
            "out_channels": output,
            "kernel_size": draw.choice([1, 2, 3, 4, 5, 7, [1, 3], [3, 1], [1, 2], [2, 1]]),
            "stride": draw.choice([1, 2, 3, 4, [1, 2], [2, 1]]),
            "padding": draw.choice([0, 0, 1, 2]),
            "dilation": draw.choice([1, 1, 1, 2]),
            "groups": groups,
            "bias": draw.random() < 0.5,
        }
        layer = draw.choice(["Conv2d", "Conv2d", "Conv2d", "ConvTranspose2d"])
        height, length = draw.choice([(5, 5), (7, 7), (8, 8), (9, 7), (16, 16), (32, 32)])
        shape = (draw.choice([1, 2, 3, 5, 8]), width, height, length)
        yield Case(layer, arguments, shape, draw.choice(list(FORMATS)))


def others() -> Iterator[Case]:
    """Layers other than convolutions."""
    activations = ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Mish", "Hardswish", "Sigmoid", "Tanh", "Softplus")
    pools = [
        (name, {"kernel_size": kernel, "stride": stride})
        for kernel, stride in ((1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (5, 2))
        for name in ("MaxPool2d", "AvgPool2d")
    ]
    for channels, size, memory_format in itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 12, 17), (5, 8, 16), FORMATS):
        layers: list[tuple[str, dict[str, Any]]] = [
            *((name, {}) for name in (*activations, "Softmax2d")),
            ("BatchNorm2d", {"num_features": channels}),
            ("InstanceNorm2d", {"num_features": channels, "affine": True}),
            *(("GroupNorm", {"num_groups": groups, "num_channels": channels}) for groups in (1, channels)),
            ("PReLU", {"num_parameters": channels}),
            ("LocalResponseNorm", {"size": 2}),
            *(("Upsample", {"scale_factor": 2, "mode": mode}) for mode in ("nearest", "bilinear")),
            ("ReflectionPad2d", {"padding": 1}),
            *pools,
            *((f"Adaptive{kind}Pool2d", {"output_size": output}) for kind in ("Avg", "Max") for output in (1, 2, 3)),
        ]
        for name, arguments in layers:
            yield Case(name, arguments, (3, channels, size, size), memory_format)
    for inputs, outputs, count in itertools.product((1, 3, 4, 5, 7, 8, 9, 17), (1, 3, 5, 8, 10), (1, 3, 8)):
        yield Case("Linear", {"in_features": inputs, "out_features": outputs}, (count, inputs), "contiguous")


def faults(
    cases: Sequence[Case], precision: str = "float32", threads: int = 1, isa: str | None = None
) -> dict[int, str]:
    """Return each failing case's fault: SIGPROF (a hang), SIGSEGV, or the relative error of an output or a gradient.

    Many cases run in one process, which is replaced if a case ends it.

    Args:
        cases: Each runs once.
        precision: `float32`, or `bfloat16` by autocast.
        threads: Number of threads of the process.
        isa: Value of oneDNN's ONEDNN_MAX_CPU_ISA; None keeps the host's.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} | ({} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa})
    found: dict[int, str] = {}
    left = list(range(len(cases)))
    while left:
        given = json.dumps([(number, *cases[number]) for number in left])
        command = [sys.executable, __file__, precision]
        done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
        seen = set()
        for line in done.stdout.splitlines():
            number, *error = line.split()
            seen.add(int(number))
            if not error:  # the case starts; the fault recorded here is deleted if it ends well
                ended = signal.Signals(-done.returncode).name if done.returncode < 0 else done.stderr.splitlines()[-1:]
                found[int(number)] = str(ended)
            elif float(error[0]) <= TOLERANCES[precision]:
                del found[int(number)]
            else:  # including NaN
                found[int(number)] = error[0]
        assert seen, f"no case ran: {done.stderr}"
        left = [number for number in left if number not in seen]
    return found


def largest_error(case: Case, precision: str) -> float:
    """Return the largest relative error of a layer's output and of its gradients by the input and each weight.

    Returns 0 if the layer does not accept the shape.
    """
    torch.manual_seed(0)
    layer, exact = case.make(), case.make().double()
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    images = torch.randn(*case.shape)
    memory_format = FORMATS[case.memory_format] if images.dim() == 4 else torch.contiguous_format
    layer = layer.to(memory_format=memory_format)  # type: ignore[call-overload]
    given = images.clone(memory_format=memory_format).requires_grad_()
    expected = images.double().requires_grad_()
    try:
        wanted = exact(expected)
    except (RuntimeError, ValueError):
        return 0.0  # the kernel is larger than the input
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        output = layer(given)
    back = torch.randn(output.shape).abs()  # so that its sum, the bias's gradient, is not near zero by chance
    wanted.backward(back.double())
    output.backward(back.to(output.dtype).contiguous(memory_format=memory_format))
    pairs = [(output, wanted), (given.grad, expected.grad)]
    pairs += [(one.grad, other.grad) for one, other in zip(layer.parameters(), exact.parameters(), strict=True)]
    return max(_relative(one, other) for one, other in pairs if one is not None and other is not None)


def _relative(value: Tensor, exact: Tensor) -> float:
    # An exactly zero gradient, such as BatchNorm's by its input over few values, has no relative error.
    return float((value.double() - exact).norm() / exact.norm().clamp_min(1e-3))


def _is_known(case: Case, precision: str) -> bool:
    """Return whether AMX leaves a bf16 output unwritten: that of a dilated, strided 1xk convolution, one pixel wide."""
    if case.layer != "Conv2d" or precision != "bfloat16":
        return False
    layer = case.make()
    (height, width), dilation, stride = layer.kernel_size, layer.dilation[1], layer.stride[1]
    pixels = (case.shape[3] + 2 * layer.padding[1] - dilation * (width - 1) - 1) // stride + 1
    return height == 1 and min(dilation, stride) > 1 and pixels == 1


def _check(cases: Iterator[Case] | list[Case], precision: str, threads: int, isa: str | None) -> None:
    kept = []
    for case in cases:
        is_avoided = case.memory_format == "channels_last" and hardware.misgraded_layer(case.make()) is not None
        if not is_avoided and not _is_known(case, precision):
            kept.append(case)
    found = faults(kept, precision, threads, isa)
    assert not found, [(kept[number], fault) for number, fault in found.items()]


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
    _check(others(), "float32", 2, isa)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's fault is in its kernels for x86")
@pytest.mark.parametrize(("isa", "channels"), [("AVX2", (1, 3, 4)), (None, (8, 12))])
def test_the_avoided_fault_still_exists(isa: str | None, channels: tuple[int, ...]) -> None:
    """If this fails, `hardware.misgraded_layer` can be removed."""
    if isa is None and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("vectors of sixteen numbers are AVX-512's")
    assert faults(pointwise(channels, (16,), (2,), (16, 32)), threads=2, isa=isa)


def test_a_layer_that_ends_its_process_is_distinguished_from_its_neighbours() -> None:
    names = ("Linear", "NoSuchLayer", "Linear")
    cases = [Case(name, {"in_features": 3, "out_features": 2}, (4, 3), "contiguous") for name in names]
    assert list(faults(cases)) == [1]


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for number, *fields in json.load(sys.stdin):
        print(number, flush=True)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # counts the time of all threads; its signal ends the process
        print(number, largest_error(Case(*fields), sys.argv[1]), flush=True)
