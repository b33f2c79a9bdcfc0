"""Export files, which get their final names only after they are read back and compared with the network."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cifar_lab.data import synthetic
from cifar_lab.export.formats import as_taken, encode, on_cpu
from cifar_lab.export.kinds import Format, Input
from cifar_lab.runs import replacing
from cifar_lab.runs.files import UNFINISHED, remove_unfinished, unfinished
from cifar_lab.trained import Overrides, Trained, load
from cifar_lab.trained.files import reason

COUNT = 256
_ALONE = 8  # images that are also computed one by one, to check that the batch size is free
_NAMES = {Format.SAFETENSORS: "model.safetensors", Format.ONNX: "model.onnx", Format.TORCH_EXPORT: "model.pt2"}


class Images(NamedTuple):
    """Images on which files and network are compared."""

    pixels: Tensor  # uint8 `(N, 32, 32, 3)`
    words: str  # description of the images
    generated: bool = False  # whether they replace data that is not on this machine


@dataclass(frozen=True)
class Exported:
    """Result of exporting one file."""

    kind: Format
    path: Path  # where it is, or would be if there were no problem
    takes: Input | None  # input of a graph; None for weights
    problem: str | None = None  # why the file could not be written, or None
    size: int = 0  # bytes
    sha256: str = ""  # of the content
    difference: float | None = None  # largest absolute difference of a logit


def images(trained: Trained) -> Images:
    """Return the first test images, or generated images if the data is not on this machine. Nothing is downloaded.

    Raises:
        DataError: The data is damaged, or missing in the folder named on the command line.
    """
    try:
        if trained.data_root is not None or trained.data_is_here:
            pixels = trained.datamodule().test_dataloader().data.images[:COUNT].cpu()
            return Images(pixels, f"{len(pixels)} test images")
    except FileNotFoundError:  # the data of a user's component is only looked for in its recorded place
        pass
    _, test = synthetic.generate(1, COUNT)
    return Images(test.images, f"{COUNT} generated images, because the data is not here", True)


def export(
    trained: Trained,
    formats: Sequence[Format],
    takes: Input,
    folder: Path,
    on: Images,
    tolerance: float,
    overrides: Overrides,
) -> Iterator[Exported]:
    """Write and compare files, one per step of the iterator.

    Args:
        trained: The network, in float32 on the CPU.
        formats: Formats to write.
        takes: Input of the graphs.
        folder: Output folder, created if it does not exist.
        on: Images on which files are compared.
        tolerance: Largest accepted absolute difference of a logit.
        overrides: Options of the command line, of which the allowed packages are used.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    for kind in formats:
        one = Exported(kind, folder / _NAMES[kind], None if kind is Format.SAFETENSORS else takes)
        try:
            content = encode(kind, trained, takes)
        except OSError:
            raise
        except Exception as error:  # torch's exporters raise arbitrary exceptions for a network that they cannot trace
            yield replace(one, problem=f"the network cannot be exported: {reason(error)}")
            continue
        # Staged in the same folder under its final name, because readers depend on the suffix.
        with tempfile.TemporaryDirectory(dir=folder, prefix=unfinished(kind), suffix=UNFINISHED) as staging:
            staged = Path(staging) / one.path.name
            with replacing(staged, "wb", durable=True) as file:
                file.write(content)
            yield _compared(one, staged, content, trained, on, tolerance, overrides)


def _compared(
    one: Exported, staged: Path, content: bytes, trained: Trained, on: Images, tolerance: float, overrides: Overrides
) -> Exported:
    """Move a staged file into place if its logits equal the network's within the tolerance."""
    try:
        difference = _largest_difference(_reader(one, staged, overrides), trained, on)
    except Exception as error:  # readers of a damaged file raise arbitrary exceptions too
        return replace(one, problem=f"the file was removed because it cannot be used: {reason(error)}")
    if not difference <= tolerance:  # or NaN
        problem = f"the file was removed: largest difference {difference:.1e} on {on.words}"
        return replace(one, problem=f"{problem}, more than --tolerance {tolerance:g}", difference=difference)
    os.replace(staged, one.path)
    return replace(one, size=len(content), sha256=hashlib.sha256(content).hexdigest(), difference=difference)


def _largest_difference(compute: Callable[[Tensor], Tensor], trained: Trained, on: Images) -> float:
    """Return the largest absolute difference of a logit, in one batch of all images and one by one; may be NaN."""
    expected = trained.logits_of_pixels(on.pixels)
    alone = [compute(image) for image in on.pixels[:_ALONE].split(1)]
    outputs = torch.cat([compute(on.pixels), *alone])
    return float((outputs - torch.cat([expected, expected[:_ALONE]])).abs().max())


def _reader(one: Exported, path: Path, overrides: Overrides) -> Callable[[Tensor], Tensor]:
    """Load a file as its user would; return a function from uint8 images `(N, 32, 32, 3)` to logits."""
    if one.takes is None:
        return on_cpu(load(path, Overrides(allow=overrides.allow, precision="32-true"))).logits_of_pixels
    takes = one.takes
    if one.kind is Format.TORCH_EXPORT:
        module = torch.export.load(path).module()
        return lambda pixels: module(as_taken(pixels, takes)).detach()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(["logits"], {"images": as_taken(pixels, takes).numpy()})[0])
