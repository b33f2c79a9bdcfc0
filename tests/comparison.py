"""Differences between two runs or two sweeps, apart from times."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from cifar_lab.runs import Run, Sweep, job_key, read_checkpoint

TIMES = {"seconds", "images_per_second", "peak_memory_bytes", "probe_seconds"}
# The checkout may change during a soak.
NOT_COMPARED = TIMES | {"git_revision"}


def equal(first: Any, second: Any) -> bool:
    """Return whether two values are bitwise equal, NaN included."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return isinstance(second, np.ndarray) and np.array_equal(first, second, equal_nan=True)
    if isinstance(first, Mapping):
        return isinstance(second, Mapping) and not _unlike(first, second) and first.keys() == second.keys()
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(equal(*pair) for pair in zip(first, second, strict=True))
    return first == second or first != first  # NaN


def _unlike(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> set[Any]:
    return {key for key in first.keys() | second.keys() if not equal(first.get(key), second.get(key))}


def differences(first: Run, second: Run) -> set[str]:
    """Return the names of the parts in which two runs differ, apart from times."""
    return _unlike(_contents(first), _contents(second))


def _contents(run: Run) -> dict[str, Any]:
    """Return a run's files and their contents, by the name that a difference is reported under."""
    found: dict[str, Any] = {"snapshots": {path.name: path.read_bytes() for path in run.snapshots().values()}}
    for name in ("best_checkpoint", "last_checkpoint"):
        checkpoint = read_checkpoint(getattr(run, name))
        # Lightning's counters include process starts and the seconds of a batch; the state of the best checkpoint has
        # paths.
        parts = {part: value for part, value in checkpoint.items() if part not in ("loops", "callbacks", "times")}
        states = {key: state for key, state in checkpoint["callbacks"].items() if not key.startswith("_Best")}
        found |= {f"{name} {part}": value for part, value in parts.items()}
        found |= {f"{name} {callback}": _timeless(state) for callback, state in states.items()}
    found["metrics.csv"] = run.metrics().drop(columns=["seconds", "images_per_second"]).to_dict("list")
    found |= {f"steps {name}": values for name, values in run.steps().items()}
    if run.probes_file.exists():
        found |= {f"probes {name}": values for name, values in _timeless(run.probes()).items()}
    found |= {key: value for key, value in run.result().items() if key not in NOT_COMPARED}
    files = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*")}
    # TensorBoard writes one file per attempt.
    found |= {f"file {name}": True for name in files if not name.startswith("tensorboard/")}
    return {**found, "weights": torch.load(next(run.weights.glob("*.pth")), weights_only=True)}


def _timeless(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's arrays without its time."""
    return {name: values for name, values in arrays.items() if name != "seconds"}


def sweep_differences(first: Sweep, second: Sweep) -> set[str]:
    """Return the differences between two sweeps in their jobs, their tables, and the runs of each job."""
    runs, others = ({job_key(run.overrides()): run for run in sweep.runs()} for sweep in (first, second))
    if runs.keys() != others.keys():
        return {"jobs"}
    found = {f"{run.folder.name}: {what}" for job, run in runs.items() for what in differences(run, others[job])}
    tables = (pd.read_csv(sweep.table_csv, dtype=str) for sweep in (first, second))
    one, other = (table.drop(columns=list(TIMES), errors="ignore") for table in tables)
    return found | (set() if one.equals(other) else {"table.csv"})
