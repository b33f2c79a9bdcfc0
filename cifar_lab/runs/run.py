"""A run directory, written and read."""

import json
import os
import shutil
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from cifar_lab.runs.checkpoints import read_checkpoint, write_weights
from cifar_lab.runs.files import remove_unfinished, replacing, write_arrays
from cifar_lab.runs.locks import owner
from cifar_lab.runs.reading import (
    UnreadableError,
    read_arrays,
    read_composition,
    read_config,
    read_metrics,
    read_result,
    read_status,
)
from cifar_lab.runs.rows import append_row, keep_epochs

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

SCHEMA_VERSION = 1

# Written by what trains, removed when an unfinished run starts again.
_CONTENTS = ("result.json", "metrics.csv", "steps.npz", "probes.npz", "error.txt")
_FOLDERS = ("checkpoints", "weights", "snapshots", "tensorboard", "csv", "figures")


class RunExistsError(ValueError):
    """The folder belongs to another run."""


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
        self.composition_file = self.folder / ".hydra" / "composition.json"
        self.status_file = self.folder / "status.json"
        self.result_file = self.folder / "result.json"
        self.metrics_file = self.folder / "metrics.csv"
        self.steps_file = self.folder / "steps.npz"
        self.probes_file = self.folder / "probes.npz"
        self.error_file = self.folder / "error.txt"
        self.checkpoints = self.folder / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.previous_checkpoint = self.checkpoints / "previous.ckpt"
        self.lock_file = self.folder / "run.lock"
        self.weights = self.folder / "weights"
        self.snapshots_folder = self.folder / "snapshots"
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
        for folder in (self.folder, self.config_file.parent, *(self.folder / name for name in _FOLDERS)):
            remove_unfinished(folder)
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        composition = {
            "overrides": list(overrides),
            "options": dict(options or {}),
            "interpolations": dict(interpolations or {}),
            "config": dict(config),
        }
        for path, content in ((self.config_file, dict(config)), (self.overrides_file, list(overrides))):
            with replacing(path) as file:
                yaml.safe_dump(content, file, sort_keys=False)
        with replacing(self.composition_file) as file:
            json.dump(composition, file)
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
        self.set_state(state, error=described(error))

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
        append_row(self.metrics_file, row)

    def truncate(self, epochs: int, steps: int) -> None:
        """Take back what was written after a checkpoint.

        Args:
            epochs: That were trained to their end.
            steps: Of those epochs.

        Raises:
            UnreadableError: The row of an epoch before the last of them is damaged or missing.
        """
        if self.metrics_file.exists():
            keep_epochs(self.metrics_file, epochs)
        if self.steps_file.exists():
            self.write_steps({name: values[:steps] for name, values in self.steps().items()})

    def write_steps(self, steps: Mapping[str, np.ndarray]) -> None:
        """Write one array `(steps,)` per quantity, the whole of it each time."""
        write_arrays(self.steps_file, steps)

    def write_probes(self, probes: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of all probes so far, by the names of `docs/run_directory.md`."""
        write_arrays(self.probes_file, probes)

    def save_weights(self, model: "nn.Module", name: str) -> None:
        """Write the network's plain state dict to `weights/` under `name`."""
        write_weights(model, self.weights / name)

    def save_snapshot(self, model: "nn.Module", epoch: int) -> None:
        """Write the network's plain state dict after `epoch` epochs to `snapshots/`; the initial one's is 0."""
        write_weights(model, self.snapshots_folder / f"epoch_{epoch:04d}.pt")

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
            return read_status(self.status_file)
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
        return read_result(self.result_file)

    def finished_result(self) -> dict[str, Any] | None:
        """What `result()` says of a run that has finished; None where it has not, or its result cannot be read."""
        if self.status().get("state") != "finished":
            return None
        try:
            return self.result()
        except (FileNotFoundError, UnreadableError):
            return None

    def has_result(self) -> bool:
        """Whether the run has finished, and its result can be read."""
        return self.finished_result() is not None

    def state(self, status: Mapping[str, Any] | None = None) -> str:
        """Its state, or `dead` where it is said to run and nobody living has its lock.

        Args:
            status: What `status.json` says, where that has just been read.
        """
        state = str((self.status() if status is None else status).get("state", "unknown"))
        return "dead" if state == "running" and owner(self.lock_file) is None else state

    def outcome(self) -> dict[str, Any]:
        """The result with its `folder`; without one `status`, `folder`, `overrides` and, if there is one, `error`."""
        result, folder = self.finished_result(), str(self.folder.absolute())
        if result is not None:
            return {**result, "folder": folder}
        status = self.status()
        told = {"status": self.state(status), "folder": folder, "overrides": self.overrides()}
        return {**told, "error": status["error"]} if "error" in status else told

    def config(self) -> dict[str, Any]:
        """The resolved configuration; raises `UnreadableError` and `FileNotFoundError`, as what follows does."""
        return read_config(self.config_file)

    def overrides(self) -> list[str]:
        """The command line that gave the configuration."""
        return self.composition()["overrides"]

    def composition(self) -> dict[str, Any]:
        """What the run is, in a form that thousands of runs are compared by in seconds.

        Returns:
            `overrides`, the command line; `options`, the chosen one of each group; `interpolations`, by dotted key, for
            values that follow others; `config`, the resolved configuration, in which keys are words.
        """
        return read_composition(self.composition_file)

    def metrics(self) -> "pd.DataFrame":
        """One row per epoch; what was not measured in an epoch is NaN, and a row that is damaged is left out.

        Of an epoch that was written twice the later row counts.
        """
        return read_metrics(self.metrics_file)

    def steps(self) -> dict[str, np.ndarray]:
        """One array `(steps,)` per quantity."""
        return read_arrays(self.steps_file)

    def probes(self) -> dict[str, np.ndarray]:
        """The arrays of `probes.npz`, `(P,)`, `(P, J)` or `(P, R)`, of a run with `probe=gradient`."""
        return read_arrays(self.probes_file)

    def snapshots(self) -> dict[int, Path]:
        """The files of the network's weights by the number of epochs trained, in order, of a run that has kept them."""
        paths = {path.stem.removeprefix("epoch_"): path for path in self.snapshots_folder.glob("epoch_*.pt")}
        return dict(sorted((int(epoch), path) for epoch, path in paths.items() if epoch.isdecimal()))

    def snapshot(self, epoch: int) -> "dict[str, Tensor]":
        """The network's state dict after so many epochs.

        Raises:
            FileNotFoundError: It was not kept.
            CheckpointError: It is damaged, or holds more than tensors.
        """
        return read_checkpoint(self.snapshots_folder / f"epoch_{epoch:04d}.pt")


def described(error: BaseException) -> str:
    """What an exception says; with the name of its class where that alone tells what has happened."""
    told, kind = str(error), type(error).__name__
    return f"{kind}: {told}" if told and isinstance(error, SystemExit | LookupError) else told or kind
