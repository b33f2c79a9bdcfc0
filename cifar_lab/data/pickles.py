"""Reads CIFAR's files in the Python layout, with an unpickler restricted to numpy arrays of bytes."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from cifar_lab.data.files import RECORD_BYTES, DataError

T = TypeVar("T")


class _Dtype:
    """Replaces numpy's dtype in a pickle; accepts bytes, and no dtype that holds pointers."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it has an array of {code!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Replaces numpy's array in a pickle, because numpy would let the file decide which values are pointers."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, content = state
        assert isinstance(dtype, _Dtype)
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _ArrayUnpickler(pickle._Unpickler):
    """Loads arrays of bytes, strings, numbers and lists, and refuses everything else that a pickle could call.

    Based on the unpickler in Python, which is slower by a tenth of a second per file. The one in C allocates its memo
    up to the index to be stored, so that ten bytes can fill any memory.
    """

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no array needs") from None


def read_batch(path: Path, kind: str, count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Read planes, uint8 `(N, 3072)`, and integer labels `(N,)`, which the file has under the key `kind`.

    N must be `count`, unless that is None.

    Raises:
        DataError: The file has different content.
    """
    planes, labels = unpickled(path, lambda batch: (batch[b"data"].values, np.asarray(batch[kind.encode()])))
    expected = (labels.size if count is None else count, RECORD_BYTES - 1)
    if planes.shape != expected or labels.shape != expected[:1] or labels.dtype.kind != "i":
        raise DataError(
            f"{path} holds {planes.dtype} images {planes.shape} and {labels.dtype} labels {labels.shape}, not uint8 "
            f"{expected} and {expected[:1]} integers; unpack the archive again"
        )
    return planes, labels


def unpickled(path: Path, take: Callable[[dict[bytes, Any]], T]) -> T:
    """Load the mapping in a pickle file and return `take` of it; raise `DataError` for other content."""
    try:
        return take(_ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load())
    except Exception as error:  # damaged bytes can make the unpickler raise nearly anything
        words = " ".join(str(error).split())[:200]  # names in a pickle may have several lines
        raise DataError(f"{path} is not a CIFAR batch ({words}); unpack the archive again") from None
