"""What two runs, or two sweeps, do not have in common, times aside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cifar_lab.runs import Run, Sweep, job_key, read_checkpoint

TIMES = {"seconds", "images_per_second", "peak_memory_bytes", "probe_seconds"}
# What is checked out may change while a soak runs.
NOT_COMPARED = TIMES | {"git_revision"}


def equal(first: Any, second: Any) -> bool:
    """Whether two values of a checkpoint are the same to the bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(equal(*pair) for pair in zip(first, second, strict=True))
    return first == second or first != first  # NaN


def differences(first: Run, second: Run) -> set[str]:
    """What two runs do not have in common, times aside."""
    told = set()
    for name in ("best_checkpoint", "last_checkpoint"):
        one, other = (read_checkpoint(getattr(run, name)) for run in (first, second))
        for part in one.keys() | other.keys():
            # Lightning's counters also count processes' starts and the seconds of a batch.
            if part not in ("loops", "callbacks", "times") and not equal(one.get(part), other.get(part)):
                told.add(f"{name} {part}")
        for callback in one["callbacks"]:  # the best's tells paths
            states = [_timeless(each["callbacks"].get(callback, {})) for each in (one, other)]
            if not callback.startswith("_Best") and not equal(*states):
                told.add(f"{name} {callback}")
    (one, other) = (run.metrics().drop(columns=["seconds", "images_per_second"]) for run in (first, second))
    told |= set() if one.equals(other) else {"metrics.csv"}
    one, other = first.steps(), second.steps()
    told |= {f"steps {name}" for name in one if not np.array_equal(one[name], other[name], equal_nan=True)}
    if first.probes_file.exists() and second.probes_file.exists():
        one, other = (_timeless(run.probes()) for run in (first, second))
        same = {name for name in one.keys() & other.keys() if np.array_equal(one[name], other[name], equal_nan=True)}
        told |= {f"probes {name}" for name in (one.keys() | other.keys()) - same}
    snapshots = [{path.name: path.read_bytes() for path in run.snapshots().values()} for run in (first, second)]
    told |= set() if snapshots[0] == snapshots[1] else {"snapshots"}
    one, other = first.result(), second.result()
    told |= {key for key in one.keys() | other.keys() if key not in NOT_COMPARED and one.get(key) != other.get(key)}
    one, other = (_files(run.folder) for run in (first, second))
    told |= {f"file {name}" for name in one ^ other}
    weights = [torch.load(next(run.weights.glob("*.pth")), weights_only=True) for run in (first, second)]
    return told | (set() if equal(*weights) else {"weights"})


def _timeless(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What a probe keeps, without what it took."""
    return {name: values for name, values in arrays.items() if name != "seconds"}


def _files(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in names if not name.startswith("tensorboard/")}  # a file for each attempt


def sweep_differences(first: Sweep, second: Sweep) -> set[str]:
    """What two sweeps do not have in common: their jobs, their tables, and the runs of each job."""
    runs, others = ({job_key(run.overrides()): run for run in sweep.runs()} for sweep in (first, second))
    if runs.keys() != others.keys():
        return {"jobs"}
    told = {f"{run.folder.name}: {what}" for job, run in runs.items() for what in differences(run, others[job])}
    one, other = (
        pd.read_csv(sweep.table_csv, dtype=str).drop(columns=list(TIMES), errors="ignore") for sweep in (first, second)
    )
    return told | (set() if one.equals(other) else {"table.csv"})
