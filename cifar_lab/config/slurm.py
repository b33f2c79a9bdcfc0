"""Whether a command line may hand the jobs of its sweep to Slurm, by Hydra's submitit launcher."""

import importlib.util
import shutil
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import checks, schema

NAME = "submitit_slurm"
_LINE = f"hydra/launcher={NAME}"
_PLUGIN = "hydra_plugins.hydra_submitit_launcher"
_LAUNCHER = f"{_PLUGIN}.submitit_launcher.SlurmLauncher"


def check_available(overrides: Sequence[Override], is_sweep: bool) -> None:
    """Refuse Slurm where it cannot be had.

    Args:
        overrides: The command line.
        is_sweep: Whether it runs several jobs.

    Raises:
        ValueError: In one line that says how to get it.
    """
    asked = {str(override.value()) for override in overrides if override.key_or_group == "hydra/launcher"}
    if "submitit_local" in asked:
        raise ValueError("hydra/launcher=submitit_local: jobs_per_device= runs jobs side by side on this machine")
    if NAME not in asked:
        return
    if not is_sweep:
        raise ValueError(f"{_LINE} is for sweeps; add --multirun, also for a single run")
    if not _is_installed():
        raise ValueError(
            f"{_LINE} needs hydra-submitit-launcher, which is not installed: pip install 'cifar-lab[slurm]'"
        )
    for command in ("sbatch", "srun", "squeue"):
        if shutil.which(command) is None:
            raise ValueError(f"{_LINE} needs Slurm's {command}, which is not found here; type it where jobs are queued")


def is_chosen(hydra: DictConfig) -> bool:
    """Whether Hydra's own part hands jobs to Slurm."""
    return str(hydra.launcher._target_) == _LAUNCHER


def check_settings(config: DictConfig) -> None:
    """Refuse settings that no job of Slurm can have.

    Args:
        config: A composed job, with Hydra's own part.

    Raises:
        ValueError: In one line.
    """
    launcher: Any = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    known = OmegaConf.to_container(OmegaConf.load(schema.conf_folder() / "hydra" / "launcher" / f"{NAME}.yaml"))
    checks.check_values({"hydra": {"launcher": launcher}}, {"hydra": {"launcher": known}})
    for key in ("nodes", "tasks_per_node"):
        if launcher[key] != 1:
            raise ValueError(f"hydra.launcher.{key}={launcher[key]}: a run of a sweep is one process; leave it at 1")
    delay, minutes = launcher["signal_delay_s"], launcher["timeout_min"]
    if delay >= 60 * minutes:
        raise ValueError(
            f"hydra.launcher.signal_delay_s={delay} leaves nothing of timeout_min={minutes}; "
            f"set it to the seconds that a step and a save take"
        )
    if config.jobs_per_device > 1:
        raise ValueError(
            f"jobs_per_device={config.jobs_per_device} runs jobs on this machine; leave hydra/launcher= out"
        )


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_PLUGIN) is not None
    except ModuleNotFoundError:
        return False
