"""Files written, read back, compared, and only then put under their names."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.export import verification
from cifar_lab.export.formats import encode
from cifar_lab.export.kinds import Format, Input
from cifar_lab.export.subject import file_of_weights
from cifar_lab.runs import replacing
from cifar_lab.trained import Said, Trained


@dataclass(frozen=True)
class Exported:
    """One file.

    Attributes:
        kind: Of file.
        path: Where it is; where there is a problem, where it would be.
        takes: What a graph takes; None of weights.
        problem: Why there is no file; None where there is one.
        size: Bytes.
        sha256: Of its content.
        difference: The largest of a logit.
    """

    kind: Format
    path: Path
    takes: Input | None
    problem: str | None = None
    size: int = 0
    sha256: str = ""
    difference: float | None = None


def export(
    trained: Trained,
    formats: Sequence[Format],
    takes: Input,
    folder: Path,
    on: verification.Images,
    tolerance: float,
    said: Said,
) -> Iterator[Exported]:
    """Write the files, each as it is asked for.

    Args:
        trained: In float32, on the CPU.
        formats: Kinds of files.
        takes: What graphs take.
        folder: Made if it does not exist.
        on: What files are compared on.
        tolerance: The largest difference of a logit.
        said: Of the command line, for what may run.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in formats:
        path = folder / _file_name(kind, trained)
        # Beside its place, under its own name, by whose ending it is read: there is never a file that was not compared.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as staging:
            yield _exported(kind, path, Path(staging) / path.name, trained, takes, on, tolerance, said)


def _exported(
    kind: Format,
    path: Path,
    staged: Path,
    trained: Trained,
    takes: Input,
    on: verification.Images,
    tolerance: float,
    said: Said,
) -> Exported:
    of_graph = takes if kind.is_graph else None
    try:
        content = encode(kind, trained, takes)
    except OSError:
        raise
    except Exception as error:  # torch's exporters raise whatever they meet in a network that they cannot follow
        return Exported(kind, path, of_graph, f"the network cannot be exported: {_words(error)}")
    with replacing(staged, "wb", durable=True) as file:
        file.write(content)
    try:
        difference = verification.largest_difference(staged, kind, trained, takes, on, said)
    except Exception as error:  # so does what reads a file that is damaged
        return Exported(kind, path, of_graph, f"the file was removed, as it cannot be used: {_words(error)}")
    if not difference <= tolerance:  # NaN too
        words = f"largest difference {difference:.1e} on {on.words}, more than --tolerance {tolerance:g}"
        return Exported(kind, path, of_graph, f"the file was removed: {words}", difference=difference)
    os.replace(staged, path)
    return Exported(kind, path, of_graph, None, len(content), hashlib.sha256(content).hexdigest(), difference)


def _file_name(kind: Format, trained: Trained) -> str:
    endings = {Format.SAFETENSORS: "safetensors", Format.ONNX: "onnx", Format.TORCH_EXPORT: "pt2"}
    return f"model.{endings[kind]}" if kind in endings else file_of_weights(trained)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
