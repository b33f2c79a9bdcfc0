"""Writes a run directory."""

import csv
import json
import math
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

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.checkpoints import write_weights
from cifar_lab.runs.files import naming, remove_unfinished, replacing, write_arrays
from cifar_lab.runs.locks import LockedError, locked
from cifar_lab.runs.run_files import RunFiles

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1

# Files that training writes, removed when an unfinished run starts again.
_CONTENTS = ("result.json", "metrics.csv", "steps.npz", "probes.npz", "error.txt", "loggers.json")
_OF_COMMANDS = ("evaluation", "explanation", "export")  # commands on a trained network
_FOLDERS = ("checkpoints", "weights", "snapshots", "tensorboard", "csv", "wandb", "figures", *_OF_COMMANDS)
REPLACED = "replaced"  # the folder of runs that were trained again


class RunExistsError(UsageError):
    """The folder belongs to a different run."""


class DivergedError(RuntimeError):
    """The loss is not finite."""


class Run(RunFiles):
    """One run's directory, which need not exist, read and written by the process that trains it."""

    def start(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str] = (),
        options: Mapping[str, str | None] | None = None,
        interpolations: Mapping[str, str] | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        """Write the configuration and the state `running`; the caller holds the run's lock.

        Args:
            config: The resolved configuration, plain values.
            overrides: The command line that produced it.
            options: The chosen option of each group.
            interpolations: The interpolations of values that depend on others, by dotted key.
            goes_on: Keep the files of an earlier attempt instead of removing them.

        Raises:
            RunExistsError: The folder has a finished run, or a user's files.
            OSError: The folder cannot be written.
        """
        if goes_on:
            self.error_file.unlink(missing_ok=True)
            self.result_file.unlink(missing_ok=True)
        else:
            self._empty()
        self._remove_unfinished(any_writer=True)
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
        foreign = [name for name in (*_CONTENTS, *_FOLDERS) if (self.folder / name).exists()]
        if foreign and self.status().get("state") is None and not self.composition_file.exists():
            raise RunExistsError(
                f"{self.folder} has {foreign[0]}, which is not from a run; set hydra.run.dir= to a different folder"
            )
        if self.has_result():
            raise RunExistsError(f"{self.folder} has a finished run; set hydra.run.dir= to a different folder")
        if self.result_file.exists():  # of a finished run that was damaged later
            self.set_aside()
        for name in _FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in (*_CONTENTS, self.status_file.name):  # the status last: it marks the rest as a run's
            (self.folder / name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the lock and unfinished files that killed processes left in an ended run."""
        with suppress(LockedError, OSError):  # another process trains it again, or it is read-only
            if self.lock_file.exists():
                with locked(self.lock_file):
                    pass
            self._remove_unfinished()

    def _remove_unfinished(self, *, any_writer: bool = False) -> None:
        for folder in (self.folder, self.config_file.parent, *(self.folder / name for name in _FOLDERS)):
            remove_unfinished(folder, any_writer=any_writer)

    def set_state(self, state: str, **details: object) -> None:
        """Write `state` (running, finished, failed, diverged, interrupted or pruned) and add `details` to it."""
        with replacing(self.status_file) as file:
            file.write(self._status_text(state, details))

    def _status_text(self, state: str, details: Mapping[str, object]) -> str:
        status = {**self.status(), **details, "state": state, "heartbeat": time.time()}
        return json.dumps({key: value for key, value in status.items() if value is not None}, indent=2)

    def fail(self, state: str, error: BaseException) -> None:
        """Record how the run ended without a result; the traceback goes to `error.txt`."""
        self.result_file.unlink(missing_ok=True)
        try:
            self.set_state(state, error=described(error))
        except OSError:
            # A full disk has no room for a new file, but this one already has a block.
            with self.status_file.open("r+", encoding="utf-8") as file:
                file.write(self._status_text(state, {"error": described(error)}))
                file.truncate()
        self.error_file.write_text(
            "".join(traceback.format_exception(error)), encoding="utf-8"
        )  # after the state that it belongs to

    def has_begun(self) -> bool:
        """Return whether training has reached its first step, which makes the folder worth keeping."""
        return "epoch" in self.status() or self.last_checkpoint.exists()  # a damaged status has no epoch

    def is_under_way(self) -> bool:
        """Return whether the run has begun and not ended, so that it can be resumed."""
        return self.status().get("state") not in ("finished", "failed", "diverged", "pruned", "unreadable")

    def set_aside(self) -> Path:
        """Move all but the lock, which the caller holds, into `replaced/` next to the folder; return the new folder."""
        aside = self.folder.parent / REPLACED / f"{self.folder.name}-{time.strftime('%Y-%m-%d_%H-%M-%S')}"
        aside.mkdir(parents=True, exist_ok=True)
        # The status last: it marks the folder as a run's.
        paths = sorted(self.folder.iterdir(), key=lambda path: path == self.status_file)
        for path in paths:
            if path != self.lock_file:
                path.rename(aside / path.name)
        return aside

    def discard(self) -> None:
        """Remove the files of a run that never trained, and empty folders above it under `outputs/`."""
        for name in (".hydra", *_FOLDERS):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in (*_CONTENTS, self.status_file.name, self.lock_file.name):
            (self.folder / name).unlink(missing_ok=True)
        parents = list(self.folder.absolute().parents)
        if len(parents) > 1 and parents[1].name == "outputs":  # keep a folder that the user named
            with suppress(OSError):
                for folder in (self.folder, *parents[:2]):
                    folder.rmdir()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, plain values by name, then the state `finished`."""
        with replacing(self.result_file) as file:
            json.dump({"schema_version": SCHEMA_VERSION, **result, "status": "finished"}, file, indent=2)
        self.set_state("finished")

    def append_metrics(self, row: Mapping[str, float | int | None]) -> None:
        """Append one epoch's row to `metrics.csv`, after a header in a new file, and flush it to the disk."""
        is_new = not self.metrics_file.exists()
        with naming(self.metrics_file), self.metrics_file.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if is_new:
                writer.writeheader()
            numbers = {name: None if value is None or math.isnan(value) else value for name, value in row.items()}
            writer.writerow(numbers)
            # On the disk before the checkpoint that relies on it.
            file.flush()
            os.fsync(file.fileno())

    def truncate(self, epochs: int, steps: int) -> None:
        """Remove the records after a checkpoint; `check_records` has checked those before it.

        Args:
            epochs: Number of complete epochs.
            steps: Number of steps in these epochs.
        """
        if self.metrics_file.exists():
            header, *rows = [
                *self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True),
                "",
            ]
            kept = {row.partition(",")[0]: row for row in rows if row.endswith("\n")}  # the last row of each epoch
            rows = [kept[epoch] for epoch in map(str, range(1, epochs + 1)) if epoch in kept]
            if rows:
                with replacing(self.metrics_file) as file:
                    file.writelines([header, *rows])
            else:  # the header may be incomplete; the next row writes it again
                self.metrics_file.unlink()
        if self.steps_file.exists():
            self.write_steps({name: values[:steps] for name, values in self.steps().items()})

    def write_steps(self, steps: Mapping[str, np.ndarray]) -> None:
        """Write one array `(steps,)` per quantity, in place of an earlier file."""
        write_arrays(self.steps_file, steps)

    def write_probes(self, probes: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of all probes so far, by the names in `docs/run_directory.md`."""
        write_arrays(self.probes_file, probes)

    def save_weights(self, model: "nn.Module", name: str) -> None:
        """Write the network's plain state dict to `weights/` under `name`, replacing any other file there."""
        write_weights(model, self.weights / name)
        for other in self.weights.glob("*.pth"):  # from before the run was trained further
            if other.name != name:
                other.unlink()

    def save_snapshot(self, model: "nn.Module", epoch: int) -> None:
        """Write the network's plain state dict after `epoch` epochs to `snapshots/`; 0 is before training."""
        write_weights(model, self.snapshots_folder / f"epoch_{epoch:04d}.pt")


class FollowedRun(Run):
    """One run's directory, read-only, for processes that train together with the one that writes it."""

    def _leave(self, *_: object, **__: object) -> None:
        """Do nothing, because another process writes."""

    set_state = append_metrics = truncate = write_steps = write_probes = save_weights = save_snapshot = _leave


class PrunedError(RuntimeError):
    """A search has ended the run early, after `epoch`, from 1."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned at epoch {epoch}")
        self.epoch = epoch

    def __reduce__(self) -> tuple[type["PrunedError"], tuple[int]]:
        return PrunedError, (self.epoch,)


def described(error: BaseException) -> str:
    """Return an exception's message; with the name of its class if the message is not clear without it."""
    text, kind = str(error), type(error).__name__
    return f"{kind}: {text}" if text and isinstance(error, SystemExit | LookupError) else text or kind
