"""Whether a command line may hand the jobs of its sweep to Slurm, by Hydra's submitit launcher."""

import shutil

from omegaconf import DictConfig

from cifar_lab.config.launchers import LAUNCHER, SLURM, chosen
from cifar_lab.machine.exit_codes import UsageError

_LINE = f"{LAUNCHER}={SLURM.name}"


def check(config: DictConfig, is_sweep: bool) -> None:
    """Refuse Slurm where it cannot be had, and settings that no job of it can have; says nothing of other launchers.

    Args:
        config: A composed job, with Hydra's own part.
        is_sweep: Whether the command line runs several jobs.

    Raises:
        ValueError: In one line.
    """
    target = str(config.hydra.launcher._target_)
    if chosen(target) is not SLURM:
        return
    if target.endswith(".LocalLauncher"):
        raise UsageError("hydra/launcher=submitit_local: jobs_per_device= runs jobs side by side on this machine")
    if not is_sweep:
        raise UsageError(f"{_LINE} is for sweeps; add --multirun, also for a single run")
    SLURM.check_installed(_LINE)
    for command in ("sbatch", "srun", "squeue"):
        if shutil.which(command) is None:
            raise UsageError(f"{_LINE} needs Slurm's {command}, which is not found here; type it where jobs are queued")
    _check_settings(config)


def _check_settings(config: DictConfig) -> None:
    launcher = config.hydra.launcher
    for key in ("nodes", "tasks_per_node"):
        if launcher[key] != 1:
            raise UsageError(f"hydra.launcher.{key}={launcher[key]}: a run of a sweep is one process; leave it at 1")
    delay, minutes = launcher["signal_delay_s"], launcher["timeout_min"]
    if delay >= 60 * minutes:
        raise UsageError(
            f"hydra.launcher.signal_delay_s={delay} leaves nothing of timeout_min={minutes}; "
            f"set it to the seconds that a step and a save take"
        )
    if config.jobs_per_device > 1:
        raise UsageError(
            f"jobs_per_device={config.jobs_per_device} runs jobs on this machine; leave hydra/launcher= out"
        )
