"""Who runs the jobs of a command line: this process in turn, processes side by side, Slurm, Ray."""

from cifar_lab.engines.application import run_application, run_jobs
from cifar_lab.engines.handover import RunFailedError

__all__ = ["RunFailedError", "run_application", "run_jobs"]
