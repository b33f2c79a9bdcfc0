"""A run's files as checked values, whoever wrote them."""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cifar_lab import current
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.files import fresh
from cifar_lab.runs.plain import check_kinds, from_json, from_yaml

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Kinds = Mapping[str, type | tuple[type, ...]]

_NUMBER = (int, float)
_STATUS: Kinds = {
    **dict.fromkeys(("state", "error", "host"), str),
    **dict.fromkeys(("process", "epoch", "epochs", "step", "threads"), int),
    **dict.fromkeys(("compile", "cuda_graphs"), bool),
    **dict.fromkeys(("heartbeat", "start"), _NUMBER),
}
RESULT_KINDS: Kinds = {
    **dict.fromkeys(("name", "protocol", "precision", "fingerprint"), str),
    **dict.fromkeys(("options", "hardware", "versions"), dict),
    **dict.fromkeys(("classes", "confusion_matrix", "overrides"), list),
    **dict.fromkeys(("epochs", "train_size", "val_size", "test_size", "num_parameters"), int),
    **dict.fromkeys(("best_epoch", "train_available", "probes"), (int, type(None))),
    **dict.fromkeys(("test/acc", "test/acc_final", "test/loss", "test/loss_final"), _NUMBER),
    **dict.fromkeys(("val/acc", "val/loss", "seconds"), _NUMBER),
    **dict.fromkeys(("images_per_second", "peak_memory_bytes", "published", "probe_seconds"), (*_NUMBER, type(None))),
}
_CONFIG: Kinds = dict.fromkeys(("seed", "epochs"), int)
_COMPOSITION: Kinds = {"overrides": list, "options": dict, "interpolations": dict, "config": dict}


class UnreadableError(UsageError):
    """A file of a run is damaged; the message names it."""


def read_status(path: Path) -> dict[str, Any]:
    """The content of `status.json`.

    Raises:
        FileNotFoundError: There is none.
        UnreadableError: It is damaged; all functions here raise both.
    """

    def parse(text: str) -> Any:
        told = _checked(from_json(text), _STATUS)
        if not math.isfinite(told.get("heartbeat", 0)):
            raise ValueError(f"heartbeat is {told['heartbeat']}")
        return told

    return _parsed(path, parse)


def read_result(path: Path) -> dict[str, Any]:
    """The content of `result.json`; `test/acc` is from 0 to 1."""

    def parse(text: str) -> Any:
        result = _checked(from_json(text), RESULT_KINDS)
        if not 0 <= result.get("test/acc", math.nan) <= 1:
            raise ValueError(f"test/acc is {result.get('test/acc', 'missing')}, not from 0 to 1")
        return result

    return _parsed(path, parse)


def read_config(path: Path) -> dict[str, Any]:
    """The content of `config.yaml`, with components that have moved since under their names of today."""

    def renamed(node: Any, key: object = None) -> Any:
        if isinstance(node, dict):
            return {key: renamed(value, key) for key, value in node.items()}
        if isinstance(node, list):
            return [renamed(value) for value in node]
        return current(node) if key == "_target_" and isinstance(node, str) else node

    return _parsed(path, lambda text: renamed(_checked(from_yaml(text), _CONFIG)))


def read_composition(path: Path) -> dict[str, Any]:
    """The content of `composition.json`, with all of its four parts."""

    def parse(text: str) -> Any:
        told = _checked(from_json(text), _COMPOSITION)
        options = [option for option in told["options"].values() if option is not None]
        words = {"overrides": told["overrides"], "options": options, "interpolations": told["interpolations"].values()}
        for part, content in words.items():
            if not all(isinstance(word, str) for word in content):
                raise ValueError(f"its {part} are no words")
        _checked(told["config"], _CONFIG)
        return told

    return _parsed(path, parse)


def read_metrics(path: Path) -> "pd.DataFrame":
    """One row per epoch, the later one of two; damaged rows are left out."""
    import pandas as pd

    def parse(text: str) -> pd.DataFrame:
        try:
            table = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]), index_col=False, on_bad_lines="skip")
        except pd.errors.ParserError as error:
            raise ValueError(str(error)) from None
        if "epoch" not in table:
            raise ValueError("it has no column epoch")
        if any(kind not in "if" for kind in (dtype.kind for dtype in table.dtypes)):  # some cells are no numbers
            table = table[pd.to_numeric(table["epoch"], errors="coerce").notna()].apply(pd.to_numeric)
        if table["epoch"].dtype.kind == "i" and table["epoch"].is_unique:  # as nearly always; the rest takes a while
            return table
        table = table.dropna(subset=["epoch"]).astype({"epoch": int})
        return table.drop_duplicates("epoch", keep="last", ignore_index=True)

    return _parsed(path, parse)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `npz` file, by name."""
    try:
        # Without numpy's own arrays of objects, which are pickles.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from None


def _parsed(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(fresh(path.read_text))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UnreadableError:
    told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return UnreadableError(f"{path} cannot be read: {' '.join(told.split())}")


def _checked(content: Any, kinds: Kinds) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it holds no dict")
    check_kinds(content, kinds)
    return content
