"""Whether a file computes what the network does, read back as its user would."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cifar_lab.data import synthetic
from cifar_lab.export.graph import as_taken
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.subject import on_cpu
from cifar_lab.runs import read_checkpoint
from cifar_lab.trained import Said, Trained, load

COUNT = 256
_ALONE = 8  # images that are computed one by one too, so that the batch is free

Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Images:
    """What is compared on.

    Attributes:
        pixels: uint8 `(N, 32, 32, 3)`.
        words: What they are.
        generated: Whether they are none of the data's, which is not here.
    """

    pixels: Tensor
    words: str
    generated: bool = False


def images(trained: Trained) -> Images:
    """The first test images of its data; where that is not on this machine, generated ones: nothing is fetched.

    Raises:
        DataError: The data is damaged, or not in the folder that the command line names.
    """
    try:
        if trained.data_root is not None or trained.data_is_here:
            pixels = trained.datamodule().test_dataloader().data.images[:COUNT].cpu()
            return Images(pixels, f"{len(pixels)} test images")
    except FileNotFoundError:  # data from outside, which is looked for where it was
        pass
    _, test = synthetic.generate(1, COUNT)
    return Images(test.images, f"{COUNT} generated images, as its data is not here", True)


def largest_difference(path: Path, kind: Format, trained: Trained, takes: Input, on: Images, said: Said) -> float:
    """The largest difference of a logit between a file and the network; NaN where either is no number.

    Args:
        path: The file.
        kind: Of file.
        trained: In float32, on the CPU.
        takes: What a graph takes.
        on: Images, all of them in one batch, and some of them one by one.
        said: Of the command line, for what may run.

    Raises:
        Exception: What reading the file or computing with it raises.
    """
    compute = _reading(path, kind, trained, takes, said)
    expected = trained.logits_of_pixels(on.pixels)
    alone = [compute(image) for image in on.pixels[:_ALONE].split(1)]
    found = torch.cat([compute(on.pixels), *alone])
    return float((found - torch.cat([expected, expected[:_ALONE]])).abs().max())


def _reading(path: Path, kind: Format, trained: Trained, takes: Input, said: Said) -> Compute:
    """From a file to what maps uint8 images `(N, 32, 32, 3)` to logits."""
    if kind is Format.ONNX:
        return _of_onnxruntime(path, takes)
    if kind is Format.TORCH_EXPORT:
        module = torch.export.load(path).module()
        return lambda pixels: module(as_taken(pixels, takes)).detach()
    if kind is Format.SAFETENSORS:
        return on_cpu(load(path, Said(allow=said.allow, precision="32-true"))).logits_of_pixels
    return _of_weights(path, trained)


def _of_onnxruntime(path: Path, takes: Input) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def compute(pixels: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": as_taken(pixels, takes).numpy()})
        return torch.from_numpy(logits)

    return compute


def _of_weights(path: Path, trained: Trained) -> Compute:
    """The same network, with nothing but the file's weights."""
    state = read_checkpoint(path)
    names: Sequence[str] = list(trained.model.state_dict())
    if list(state) != names:
        raise ValueError("its names are not those of the network, in that order")
    model = copy.deepcopy(trained.model)
    for value in model.state_dict().values():
        value.zero_()
    model.load_state_dict(state)

    def compute(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return model(trained.normalised(pixels))

    return compute
