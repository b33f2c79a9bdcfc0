"""What runs leave on disk, written and read: the only room that knows the names of their files."""

from cifar_lab.runs.files import replacing
from cifar_lab.runs.names import float32_digits, weights_name
from cifar_lab.runs.run import DivergedError, Run, RunExistsError, UnreadableError
from cifar_lab.runs.sweep import Sweep, find_runs, find_sweeps, is_run, job_key

__all__ = [
    "DivergedError",
    "Run",
    "RunExistsError",
    "Sweep",
    "UnreadableError",
    "find_runs",
    "find_sweeps",
    "float32_digits",
    "is_run",
    "job_key",
    "replacing",
    "weights_name",
]
