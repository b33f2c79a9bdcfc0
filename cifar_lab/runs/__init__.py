"""Reads and writes the files of runs. No other package knows their names."""

from cifar_lab.runs.archive import Archive
from cifar_lab.runs.checkpoints import CheckpointError, first_whole, read_checkpoint, write_checkpoint
from cifar_lab.runs.files import replacing
from cifar_lab.runs.labels import float32_digits, weights_name
from cifar_lab.runs.locks import LockedError, guarded, locked, owner
from cifar_lab.runs.reading import WHOLE_LIMIT, UnreadableError, check_kinds, from_json, from_yaml
from cifar_lab.runs.record import Record, read_run, read_state
from cifar_lab.runs.run import DivergedError, FollowedRun, PrunedError, Run, RunExistsError, described
from cifar_lab.runs.sweep import HOW_IT_IS_RUN, Sweep, find, find_runs, find_sweeps, is_run, job_key

__all__ = [
    "HOW_IT_IS_RUN",
    "WHOLE_LIMIT",
    "Archive",
    "CheckpointError",
    "DivergedError",
    "FollowedRun",
    "LockedError",
    "PrunedError",
    "Record",
    "Run",
    "RunExistsError",
    "Sweep",
    "UnreadableError",
    "check_kinds",
    "described",
    "find",
    "find_runs",
    "find_sweeps",
    "first_whole",
    "float32_digits",
    "from_json",
    "from_yaml",
    "guarded",
    "is_run",
    "job_key",
    "locked",
    "owner",
    "read_checkpoint",
    "read_run",
    "read_state",
    "replacing",
    "weights_name",
    "write_checkpoint",
]
