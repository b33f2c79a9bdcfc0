"""Gradients of single layers, in float32 or bf16, against float64, in processes that may hang or crash.

oneDNN's kernels write past their buffers for some shapes, so each case is named before it runs.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# Relative errors of a right gradient: 1e-6 in float32, 5e-3 in bf16; the wrong ones seen are from 0.02 on.
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}
CPU_SECONDS = 5  # of one case, which takes milliseconds; a hanging one keeps all cores busy


class Case(NamedTuple):
    """A layer of `torch.nn` with its arguments, the shape of its input, and the memory format of both."""

    layer: str
    arguments: Mapping[str, Any]
    shape: Sequence[int]
    memory_format: str

    def make(self) -> nn.Module:
        """The layer, in float32."""
        arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in self.arguments.items()}
        layer: nn.Module = getattr(nn, self.layer)(**arguments)
        return layer


def pointwise(
    widths: Sequence[int], outputs: Sequence[int], strides: Sequence[int], sizes: Sequence[int]
) -> list[Case]:
    """Convolutions 1x1."""
    return [
        Case(
            "Conv2d",
            {"in_channels": width, "out_channels": output, "kernel_size": 1, "stride": stride},
            (5, width, size, size),
            "channels_last",
        )
        for width, output, stride, size in itertools.product(widths, outputs, strides, sizes)
    ]


def convolutions(count: int, seed: int = 0) -> Iterator[Case]:
    """Convolutions of odd widths, kernels, strides and groups, drawn at random."""
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
    """Layers that are no convolutions."""
    activations = ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Mish", "Hardswish", "Sigmoid", "Tanh", "Softplus")
    for channels, size, memory_format in itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 12, 17), (5, 8, 16), FORMATS):
        layers: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in activations]
        layers += [
            ("BatchNorm2d", {"num_features": channels}),
            ("InstanceNorm2d", {"num_features": channels, "affine": True}),
            ("GroupNorm", {"num_groups": 1, "num_channels": channels}),
            ("GroupNorm", {"num_groups": channels, "num_channels": channels}),
            ("PReLU", {"num_parameters": channels}),
            ("LocalResponseNorm", {"size": 2}),
            ("Upsample", {"scale_factor": 2, "mode": "nearest"}),
            ("Upsample", {"scale_factor": 2, "mode": "bilinear"}),
            ("ReflectionPad2d", {"padding": 1}),
            ("Softmax2d", {}),
        ]
        for kernel, stride in ((1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (5, 2)):
            pools = ("MaxPool2d", "AvgPool2d")
            layers += [(pool, {"kernel_size": kernel, "stride": stride}) for pool in pools]
        for output in (1, 2, 3):
            layers += [(pool, {"output_size": output}) for pool in ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d")]
        for name, arguments in layers:
            yield Case(name, arguments, (3, channels, size, size), memory_format)
    for inputs, outputs, count in itertools.product((1, 3, 4, 5, 7, 8, 9, 17), (1, 3, 5, 8, 10), (1, 3, 8)):
        yield Case("Linear", {"in_features": inputs, "out_features": outputs}, (count, inputs), "contiguous")


def faults(
    cases: Sequence[Case], precision: str = "float32", threads: int = 1, isa: str | None = None
) -> dict[int, str]:
    """What is wrong with which case: SIGPROF (it hangs), SIGSEGV, or the relative error of an output or a gradient.

    Args:
        cases: Each runs once, many of them in one process, which is replaced when one ends it.
        precision: `float32`, or `bfloat16` by autocast.
        threads: Of the process.
        isa: oneDNN's ONEDNN_MAX_CPU_ISA; None leaves the host's.
    """
    found: dict[int, str] = {}
    left = list(range(len(cases)))
    while left:
        ended = _run([(number, *cases[number]) for number in left], precision, threads, isa)
        found |= ended.found
        assert ended.seen, f"no case ran: {ended.errors}"
        left = [number for number in left if number not in ended.seen]
    return found


class _Ended(NamedTuple):
    seen: set[int]
    found: dict[int, str]
    errors: str


def _run(cases: Sequence[tuple[Any, ...]], precision: str, threads: int, isa: str | None) -> _Ended:
    """Run cases in one process until they end, or one ends it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if isa is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    command = [sys.executable, __file__, precision]
    done = subprocess.run(
        command, input=json.dumps(cases), env=environment, capture_output=True, text=True, check=False
    )
    seen, found = set(), {}
    for line in done.stdout.splitlines():
        number, *error = line.split()
        seen.add(int(number))
        if not error:  # it begins; what is said here stays if it does not end
            is_killed = done.returncode < 0
            found[int(number)] = signal.Signals(-done.returncode).name if is_killed else done.stderr.splitlines()[-1]
        elif float(error[0]) <= TOLERANCES[precision]:
            del found[int(number)]
        else:  # NaN, too
            found[int(number)] = error[0]
    return _Ended(seen, found, done.stderr)


def largest_error(case: Case, precision: str) -> float:
    """The largest relative error of a layer's output and gradients: of its input and of each weight.

    0 if the layer does not accept the shape.
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
        return 0.0  # larger than its input: no case
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        output = layer(given)
    back = torch.randn(output.shape).abs()  # so that a sum over it, a bias's gradient, is not near zero by chance
    wanted.backward(back.double())
    output.backward(back.to(output.dtype).contiguous(memory_format=memory_format))
    pairs = [(output, wanted), (given.grad, expected.grad)]
    pairs += [(one.grad, other.grad) for one, other in zip(layer.parameters(), exact.parameters(), strict=True)]
    return max(_relative(one, other) for one, other in pairs if one is not None and other is not None)


def _relative(value: Tensor, exact: Tensor) -> float:
    # A gradient that is exactly zero, as BatchNorm's of its input over few values, has no relative error.
    return float((value.double() - exact).norm() / exact.norm().clamp_min(1e-3))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for number, *fields in json.load(sys.stdin):
        print(number, flush=True)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # of all threads; its signal ends the process
        print(number, largest_error(Case(*fields), sys.argv[1]), flush=True)
