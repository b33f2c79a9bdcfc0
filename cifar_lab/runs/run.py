"""A run directory, written and read."""

import csv
import io
import json
import math
import os
import shutil
import socket
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import yaml

from cifar_lab.runs.files import replacing
from cifar_lab.runs.locks import owner
from cifar_lab.runs.plain import check_kinds, from_json, from_yaml

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1
T = TypeVar("T")

# Written by what trains, removed when an unfinished run starts again.
_CONTENTS = ("result.json", "metrics.csv", "steps.npz", "error.txt")
_FOLDERS = ("checkpoints", "weights", "tensorboard", "csv", "figures")

# What a reader must be able to rely on, where it is there.
_NUMBER = (int, float)
_STATUS_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("state", "error", "host"), str),
    **dict.fromkeys(("process", "epoch", "epochs", "step", "threads"), int),
    **dict.fromkeys(("heartbeat", "start"), _NUMBER),
}
_RESULT_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "protocol", "precision", "fingerprint"), str),
    **dict.fromkeys(("options", "hardware", "versions"), dict),
    **dict.fromkeys(("classes", "confusion_matrix", "overrides"), list),
    **dict.fromkeys(("epochs", "train_size", "val_size", "test_size", "num_parameters"), int),
    **dict.fromkeys(("best_epoch", "train_available"), (int, type(None))),
    **dict.fromkeys(("test/acc", "test/acc_final", "test/loss", "test/loss_final"), _NUMBER),
    **dict.fromkeys(("val/acc", "val/loss", "seconds"), _NUMBER),
    **dict.fromkeys(("images_per_second", "peak_memory_bytes", "published"), (*_NUMBER, type(None))),
}
_CONFIG_KINDS = dict.fromkeys(("seed", "epochs"), int)


class RunExistsError(ValueError):
    """The folder belongs to another run."""


class UnreadableError(ValueError):
    """A file of a run is damaged; the message names it."""


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


class Run:
    """One run's directory.

    Args:
        folder: The directory; it need not exist.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.config_file = self.folder / ".hydra" / "config.yaml"
        self.overrides_file = self.folder / ".hydra" / "overrides.yaml"
        self.composition_file = self.folder / ".hydra" / "composition.yaml"
        self.status_file = self.folder / "status.json"
        self.result_file = self.folder / "result.json"
        self.metrics_file = self.folder / "metrics.csv"
        self.steps_file = self.folder / "steps.npz"
        self.error_file = self.folder / "error.txt"
        self.checkpoints = self.folder / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.previous_checkpoint = self.checkpoints / "previous.ckpt"
        self.lock_file = self.folder / "run.lock"
        self.weights = self.folder / "weights"
        self.tensorboard = self.folder / "tensorboard"
        self.figures = self.folder / "figures"

    def start(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str] = (),
        options: Mapping[str, str | None] | None = None,
        interpolations: Mapping[str, str] | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        """Write the configuration and the state running; whoever calls it holds the run's lock.

        Args:
            config: The resolved configuration, plain values.
            overrides: The command line that gave it.
            options: The chosen option of each group.
            interpolations: What stands for values that follow others, by dotted key.
            goes_on: Keep what an earlier attempt has left, instead of emptying the folder of it.

        Raises:
            RunExistsError: A finished run is there, or somebody's files.
            OSError: The folder cannot be written.
        """
        if goes_on:
            self.error_file.unlink(missing_ok=True)
            self.result_file.unlink(missing_ok=True)
        else:
            self._empty()
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        contents = {
            self.config_file: dict(config),
            self.overrides_file: list(overrides),
            self.composition_file: {"options": dict(options or {}), "interpolations": dict(interpolations or {})},
        }
        for path, content in contents.items():
            with replacing(path) as file:
                yaml.safe_dump(content, file, sort_keys=False)
        self.set_state("running", error=None, host=socket.gethostname(), process=os.getpid(), start=time.time())

    def _empty(self) -> None:
        state = self.status().get("state")
        foreign = [name for name in (*_CONTENTS, *_FOLDERS) if (self.folder / name).exists()]
        if state is None and foreign:
            raise RunExistsError(f"{self.folder} holds {foreign[0]} of no run; set hydra.run.dir= to another folder")
        if self.has_result():
            raise RunExistsError(f"{self.folder} holds a finished run; set hydra.run.dir= to another folder")
        for name in (*_CONTENTS, self.status_file.name):
            (self.folder / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def set_state(self, state: str, **details: object) -> None:
        """Write `state`, one of running, finished, failed, diverged and interrupted, and add `details` to it."""
        with replacing(self.status_file) as file:
            told = {**self.status(), **details, "state": state, "heartbeat": time.time()}
            json.dump({key: value for key, value in told.items() if value is not None}, file, indent=2)

    def fail(self, state: str, error: BaseException) -> None:
        """Record how the run ended without a result; the traceback goes to `error.txt`."""
        self.error_file.write_text("".join(traceback.format_exception(error)))
        self.result_file.unlink(missing_ok=True)
        self.set_state(state, error=str(error) or type(error).__name__)

    def has_begun(self) -> bool:
        """Whether the first training step was due, so that what happened is worth keeping."""
        return "epoch" in self.status() or self.last_checkpoint.exists()  # a damaged status says nothing

    def discard(self) -> None:
        """Remove what a run that never trained has left, and, under `outputs/`, folders that nothing else is in."""
        shutil.rmtree(self.folder / ".hydra", ignore_errors=True)
        for name in (*_CONTENTS, self.status_file.name, self.lock_file.name):
            (self.folder / name).unlink(missing_ok=True)
        parents = list(self.folder.absolute().parents)
        if len(parents) > 1 and parents[1].name == "outputs":  # a folder that the user named stays
            with suppress(OSError):
                for folder in (self.folder, *parents[:2]):
                    folder.rmdir()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, plain values by name, then the state finished."""
        with replacing(self.result_file) as file:
            json.dump({"schema_version": SCHEMA_VERSION, **result, "status": "finished"}, file, indent=2)
        self.set_state("finished")

    def append_metrics(self, row: Mapping[str, float | int | None]) -> None:
        """Add one epoch's row to `metrics.csv`; its first row names the columns."""
        is_new = not self.metrics_file.exists()
        with self.metrics_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(
                {name: None if value is None or math.isnan(value) else value for name, value in row.items()}
            )

    def truncate(self, epochs: int, steps: int) -> None:
        """Take back what was written after a checkpoint.

        Args:
            epochs: That were trained to their end.
            steps: Of those epochs.

        Raises:
            UnreadableError: The row of an epoch before the last of them is damaged or missing.
        """
        if self.metrics_file.exists():
            header, *rows = [*self.metrics_file.read_text(errors="replace").splitlines(keepends=True), ""]
            kept = {row.partition(",")[0]: row for row in rows if row.endswith("\n")}
            wanted = [str(epoch) for epoch in range(1, epochs + 1)]
            lost = [epoch for epoch in wanted[:-1] if epoch not in kept]  # the last one's row may be still to come
            if lost:
                raise UnreadableError(f"{self.metrics_file} lacks epoch {lost[0]}, which its checkpoint goes on from")
            with replacing(self.metrics_file) as file:
                file.writelines([header, *(kept[epoch] for epoch in wanted if epoch in kept)])
            if not kept.keys() & set(wanted):  # its header may be half written; the next row writes it
                self.metrics_file.unlink()
        if self.steps_file.exists():
            self.write_steps({name: values[:steps] for name, values in self.steps().items()})

    def write_steps(self, steps: Mapping[str, np.ndarray]) -> None:
        """Write one array `(steps,)` per quantity, the whole of it each time."""
        with replacing(self.steps_file, "wb") as file:
            np.savez(file, **steps)  # type: ignore[arg-type]

    def save_weights(self, model: "nn.Module", name: str) -> None:
        """Write the network's plain state dict to `weights/` under `name`."""
        import torch

        self.weights.mkdir(exist_ok=True)
        state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        with replacing(self.weights / name, "wb") as file:
            torch.save(state, file)

    def best_epoch(self) -> int | None:
        """The first of the epochs with the best `val/acc`, from 1; None where none was validated."""
        validated = self.metrics().dropna(subset=["val/acc"])
        return None if validated.empty else int(validated["epoch"].iloc[validated["val/acc"].argmax()])

    def validation(self, epoch: int) -> dict[str, float]:
        """`val/acc` and `val/loss` of an epoch, from 1, as `metrics.csv` has them."""
        metrics = self.metrics()
        row = metrics[metrics["epoch"] == epoch].iloc[-1]
        return {name: float(row[name]) for name in ("val/acc", "val/loss")}

    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty where there is none, the state `unreadable` where it cannot be read."""
        try:
            return _parsed(self.status_file, _status, dict)
        except FileNotFoundError:
            return {}
        except UnreadableError as error:
            return {"state": "unreadable", "error": str(error)}

    def result(self) -> dict[str, Any]:
        """What `result.json` says; `test/acc` is from 0 to 1.

        Raises:
            FileNotFoundError: The run has not finished.
            UnreadableError: The file is damaged.
        """
        return _parsed(self.result_file, _result, dict)

    def has_result(self) -> bool:
        """Whether the run has finished, and its result can be read."""
        if self.status().get("state") != "finished":
            return False
        try:
            self.result()
        except (FileNotFoundError, UnreadableError):
            return False
        return True

    def state(self) -> str:
        """Its state, or `dead` where it is said to run and nobody living has its lock."""
        state = str(self.status().get("state", "unknown"))
        return "dead" if state == "running" and owner(self.lock_file) is None else state

    def outcome(self) -> dict[str, Any]:
        """The result with its `folder`; without one `status`, `folder`, `overrides` and, if there is one, `error`."""
        if self.has_result():
            return {**self.result(), "folder": str(self.folder.absolute())}
        told = {"status": self.state(), "folder": str(self.folder.absolute()), "overrides": self.overrides()}
        return {**told, "error": self.status()["error"]} if "error" in self.status() else told

    def config(self) -> dict[str, Any]:
        """The resolved configuration; raises `UnreadableError` and `FileNotFoundError`, as what follows does."""
        return _parsed(self.config_file, _config, dict)

    def overrides(self) -> list[str]:
        """The command line that gave the configuration."""
        return _parsed(self.overrides_file, _words, list)

    def composition(self) -> dict[str, Any]:
        """The chosen `options` of the groups, and `interpolations`, by dotted key, for values that follow others."""
        try:
            told = _parsed(self.composition_file, _composition, dict)
        except FileNotFoundError:  # runs of earlier versions have none
            told = {}
        return {"options": told.get("options") or {}, "interpolations": told.get("interpolations") or {}}

    def metrics(self) -> pd.DataFrame:
        """One row per epoch; what was not measured in an epoch is NaN, and a row that is damaged is left out.

        Of an epoch that was written twice the later row counts.
        """
        return _parsed(self.metrics_file, _table, pd.DataFrame)

    def steps(self) -> dict[str, np.ndarray]:
        """One array `(steps,)` per quantity."""
        try:
            # Without numpy's own arrays of objects, which are pickles.
            with self.steps_file.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise UnreadableError(f"{self.steps_file} cannot be read: {' '.join(str(error).split())}") from None


def _parsed(path: Path, parse: Callable[[str], Any], kind: type[T]) -> T:
    try:
        content = parse(path.read_text())
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise UnreadableError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, kind):
        raise UnreadableError(f"{path} cannot be read: it holds no {kind.__name__}")
    return content


def _mapping(content: Any, kinds: Mapping[str, type | tuple[type, ...]]) -> Any:
    if isinstance(content, dict):
        check_kinds(content, kinds)
    return content


def _status(text: str) -> Any:
    told = _mapping(from_json(text), _STATUS_KINDS)
    if isinstance(told, dict) and not math.isfinite(told.get("heartbeat", 0)):
        raise ValueError(f"heartbeat is {told['heartbeat']}")
    return told


def _result(text: str) -> Any:
    result = _mapping(from_json(text), _RESULT_KINDS)
    if isinstance(result, dict) and not 0 <= result.get("test/acc", math.nan) <= 1:
        raise ValueError(f"test/acc is {result.get('test/acc', 'missing')}, not from 0 to 1")
    return result


def _config(text: str) -> Any:
    return _mapping(from_yaml(text), _CONFIG_KINDS)


def _words(text: str) -> Any:
    lines = from_yaml(text)
    if isinstance(lines, list) and not all(isinstance(line, str) for line in lines):
        raise ValueError("it holds no words")
    return lines


def _composition(text: str) -> Any:
    told = from_yaml(text)
    if isinstance(told, dict):
        for part, kinds in {"options": str | None, "interpolations": str}.items():
            content = told.get(part) or {}
            if not isinstance(content, dict) or not all(isinstance(word, kinds) for word in content.values()):
                raise ValueError(f"its {part} are no words")
    return told


def _table(text: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]), index_col=False, on_bad_lines="skip")
    except pd.errors.ParserError as error:
        raise ValueError(str(error)) from None
    if "epoch" not in table:
        raise ValueError("it has no column epoch")
    epochs = pd.to_numeric(table["epoch"], errors="coerce")
    table = table[epochs.notna()].apply(pd.to_numeric).astype({"epoch": int})
    return table.drop_duplicates("epoch", keep="last", ignore_index=True)
