"""Points that a command computes one after the other, kept so that it goes on where it was stopped."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cifar_lab.runs import UnreadableError, replacing
from cifar_lab.runs.files import remove_unfinished
from cifar_lab.runs.reading import read_arrays


def digest(settings: Mapping[str, Any], *tensors: Mapping[str, Tensor]) -> str:
    """What tells a computation from others: its settings, and every bit of the tensors that it begins with.

    Args:
        settings: Plain values.
        tensors: Weights, directions, images; by name.
    """
    told = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for named in tensors:
        for name, value in named.items():
            told.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            told.update(value.detach().cpu().contiguous().numpy().tobytes())
    return told.hexdigest()[:16]


class Points:
    """The points of one computation, in one file that is whole after each of them.

    Args:
        folder: Where the file lies; made if it does not exist.
        name: Of the computation; the file's name has it and the key.
        key: Of `digest`: another computation has another file.
        count: How many points.
    """

    def __init__(self, folder: Path, name: str, key: str, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder, older_than=3_600)
        self.path = folder / f"{name}-{key}.npz"
        self.count = count
        self._values = self._read()

    def pending(self) -> list[int]:
        """The points that are not there yet."""
        return np.flatnonzero(~self._done()).tolist()

    def keep(self, index: int, values: Mapping[str, npt.ArrayLike]) -> None:
        """Add a point, and write all that there are.

        Args:
            index: Which point.
            values: The same names and shapes for each point.
        """
        for name, value in values.items():
            array = np.asarray(value, dtype=np.float64)
            self._values.setdefault(name, np.full((self.count, *array.shape), np.nan))[index] = array
        done = self._done()
        done[index] = True
        self._values["done"] = done
        with replacing(self.path, "wb") as file:
            np.savez(file, **self._values)  # type: ignore[arg-type]

    def values(self) -> dict[str, np.ndarray]:
        """An array `(points, ...)` for each quantity; float64, and NaN at points that are not there yet."""
        return {name: value for name, value in self._values.items() if name != "done"}

    def _done(self) -> np.ndarray:
        return self._values.get("done", np.zeros(self.count, dtype=bool)).copy()

    def _read(self) -> dict[str, np.ndarray]:
        try:
            values = read_arrays(self.path)
        except (FileNotFoundError, UnreadableError):  # a damaged file is computed again
            return {}
        whole = "done" in values and all(len(value) == self.count for value in values.values())
        return values if whole else {}
