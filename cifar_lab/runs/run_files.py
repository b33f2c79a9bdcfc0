"""Reads a run directory: its files and their contents."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import reading
from cifar_lab.runs.checkpoints import read_checkpoint
from cifar_lab.runs.labels import accuracy_digits
from cifar_lab.runs.locks import owner
from cifar_lab.runs.reading import UnreadableError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

T = TypeVar("T")

_PREFIX = "model."  # prefix of the network's names in a checkpoint


# The arrays of `steps.npz`.
STEP_QUANTITIES = ("loss", "grad_norm", "first_conv_grad_norm", "lr")


def _there(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except FileNotFoundError:
        raise UnreadableError(f"{path} is missing") from None


class RunFiles:
    """One run's directory, which need not exist, and may be read while another process writes it."""

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
        self.loggers_file = self.folder / "loggers.json"
        self.figures = self.folder / "figures"

    def best_epoch(self) -> int | None:
        """Return the first epoch, from 1, with the best `val/acc`; None if no epoch was validated."""
        validated = self.validated()
        return max(validated, key=validated.__getitem__, default=None)

    def check_records(self, epochs: int, steps: int, *, has_best: bool = True) -> None:
        """Check that records of this many epochs and steps, and the best epoch's checkpoint, can be read.

        Raises:
            UnreadableError: A file is damaged, missing or incomplete.
            CheckpointError: The best epoch's checkpoint is damaged.
        """
        if epochs:
            metrics = _there(self.metrics_file, self.metrics)
            lost = [name for name in ("step", "val/acc") if name not in metrics]
            lost += [f"epoch {epoch}" for epoch in range(1, epochs + 1) if epoch not in set(metrics["epoch"])]
            if lost:
                raise UnreadableError(f"{self.metrics_file} lacks {lost[0]}")
        if steps:
            recorded = _there(self.steps_file, self.steps)
            lost = [name for name in STEP_QUANTITIES if recorded.get(name, np.empty(0)).shape < (steps,)]
            if lost:
                raise UnreadableError(f"{self.steps_file} lacks {lost[0]} of some steps")
        known = self.validated() if epochs else {}
        validated = {epoch: accuracy for epoch, accuracy in known.items() if epoch <= epochs}
        if validated and has_best:
            kept = _there(self.best_checkpoint, lambda: read_checkpoint(self.best_checkpoint)).get("epoch", -1) + 1
            if kept != max(validated, key=validated.__getitem__) and kept <= epochs:  # later ones are trained again
                raise UnreadableError(f"{self.best_checkpoint} is of epoch {kept}, which is not the best epoch")

    def validated(self) -> dict[int, float]:
        """Return the `val/acc` of each validated epoch, from 1, in order."""
        known = self.metrics().dropna(subset=["val/acc"])
        return {int(epoch): float(accuracy) for epoch, accuracy in zip(known["epoch"], known["val/acc"], strict=True)}

    def validation(self, epoch: int) -> dict[str, float]:
        """Return `val/acc` and `val/loss` of an epoch, from 1, from `metrics.csv`."""
        metrics = self.metrics()
        row = metrics[metrics["epoch"] == epoch].iloc[-1]
        return {name: float(row[name]) for name in ("val/acc", "val/loss")}

    def status(self) -> dict[str, Any]:
        """Return the content of `status.json`; empty if it is missing, with the state `unreadable` if it is damaged."""
        try:
            return reading.read_status(self.status_file)
        except FileNotFoundError:
            return {}
        except UnreadableError as error:
            return {"state": "unreadable", "error": str(error)}

    def result(self) -> dict[str, Any]:
        """Return the content of `result.json`; `test/acc` is from 0 to 1.

        Raises:
            FileNotFoundError: The run has not finished.
            UnreadableError: The file is damaged.
        """
        return reading.read_result(self.result_file)

    def finished_result(self) -> dict[str, Any] | None:
        """Return the result; None if the run has not finished, or its result cannot be read."""
        if self.status().get("state") != "finished":
            return None
        try:
            return self.result()
        except (FileNotFoundError, UnreadableError):
            return None

    def has_result(self) -> bool:
        """Return whether the run has finished with a result that can be read."""
        return self.finished_result() is not None

    def state(self, status: Mapping[str, Any] | None = None) -> str:
        """Return the state in `status` or `status.json`; `dead` if it is `running` without a living lock owner."""
        state = str((self.status() if status is None else status).get("state", "unknown"))
        return "dead" if state == "running" and owner(self.lock_file) is None else state

    def outcome(self) -> dict[str, Any]:
        """Return the result with its `folder`; without a result, `status`, `folder`, `overrides` and any `error`."""
        result, folder = self.finished_result(), str(self.folder.absolute())
        if result is not None:
            return {**result, "folder": folder}
        status = self.status()
        row = {"status": self.state(status), "folder": folder, "overrides": self.overrides()}
        return {**row, "error": status["error"]} if "error" in status else row

    def config(self) -> dict[str, Any]:
        """Read the resolved configuration; raise `UnreadableError` or `FileNotFoundError`, like the methods below."""
        return reading.read_config(self.config_file)

    def overrides(self) -> list[str]:
        """Return the command line that produced the configuration."""
        return self.composition()["overrides"]

    def composition(self) -> dict[str, Any]:
        """Read `composition.json`, which is fast enough to compare thousands of runs in seconds.

        Returns:
            `overrides`, the command line; `options`, the chosen one of each group; `interpolations`, by dotted key, for
            values that depend on others; `config`, the resolved configuration, in which keys are strings.
        """
        return reading.read_composition(self.composition_file)

    def metrics(self) -> "pd.DataFrame":
        """Return one row per epoch, the last of several; missing values are NaN, and damaged rows are left out."""
        return reading.read_metrics(self.metrics_file)

    def steps(self) -> dict[str, np.ndarray]:
        """Return one array `(steps,)` per quantity."""
        return reading.read_arrays(self.steps_file)

    def probes(self) -> dict[str, np.ndarray]:
        """Return the arrays of `probes.npz`, `(P,)`, `(P, J)` or `(P, R)`, from `probe=gradient`."""
        return reading.read_arrays(self.probes_file)

    def snapshots(self) -> dict[int, Path]:
        """Return the snapshot files by the number of epochs trained, in order."""
        paths = {path.stem.removeprefix("epoch_"): path for path in self.snapshots_folder.glob("epoch_*.pt")}
        return dict(sorted((int(epoch), path) for epoch, path in paths.items() if epoch.isdecimal()))

    def snapshot(self, epoch: int) -> "dict[str, Tensor]":
        """Return the state dict after `epoch` epochs; raise `FileNotFoundError` or, if damaged, `CheckpointError`."""
        return read_checkpoint(self.snapshots_folder / f"epoch_{epoch:04d}.pt")

    def final_state(self) -> "dict[str, Tensor]":
        """Return the state dict at the end of training; with weight averaging, the raw weights.

        It is read from the last checkpoint, else from the last snapshot.

        Raises:
            ValueError: There is neither, or it is damaged.
        """
        if self.last_checkpoint.exists():
            saved = read_checkpoint(self.last_checkpoint)
            state = saved.get("current_model_state", saved["state_dict"])  # Lightning's key with averaging
            return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        if kept := list(self.snapshots().values()):
            return read_checkpoint(kept[-1])
        raise UsageError(f"{self.folder} has neither its last checkpoint nor snapshots; train it again")

    def chosen_weights(self) -> Path:
        """Return the file with the weights of the chosen epoch or, without a result, of the best epoch so far.

        Raises:
            ValueError: There are no weights.
        """
        named, result = sorted(self.weights.glob("*.pth")), self.finished_result()
        if result is not None:  # a run that was trained further may also have an older file
            own = f"_{accuracy_digits(result['test/acc'])}.pth"
            named.sort(key=lambda path: not path.name.endswith(own))
        # Without a result they are from an earlier end, before the run was extended.
        checkpoints = (self.best_checkpoint, self.last_checkpoint)
        ordered = (*checkpoints, *named) if result is None else (*named, *checkpoints)
        there = [path for path in ordered if path.exists()]
        if not there:
            raise UsageError(f"{self.folder} has neither weights nor checkpoints; train it again")
        return there[0]
