"""The Hydra launchers that this project supports, their packages and their limits."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import checks, schema
from cifar_lab.config.devices import processes
from cifar_lab.machine import torchrun
from cifar_lab.machine.cores import cores
from cifar_lab.machine.exit_codes import UsageError

LAUNCHER = "hydra/launcher"


@dataclass(frozen=True)
class Launcher:
    """A launcher, which distributes the jobs of a sweep to processes."""

    name: str  # as in `hydra/launcher=name`
    plugin: str  # the package with Hydra's plugin
    distribution: str  # its name for pip
    extra: str  # the extra of this project that installs it

    def check_installed(self, line: str) -> None:
        """Raise `UsageError`, with the install command, if the package that the override `line` needs is missing."""
        checks.check_installed(line, self.plugin, self.distribution, self.extra)


JOBLIB = Launcher("joblib", "hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher", "joblib")
RAY = Launcher("ray", "hydra_plugins.hydra_ray_launcher", "hydra-ray-launcher", "ray")
SLURM = Launcher("submitit_slurm", "hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher", "slurm")
LAUNCHERS = (JOBLIB, RAY, SLURM)


def check_launcher(overrides: Sequence[Override]) -> None:
    """Raise `UsageError` for a launcher whose package is missing, before Hydra looks for it."""
    known = {launcher.name: launcher for launcher in LAUNCHERS}
    for override in overrides:
        if override.key_or_group == LAUNCHER and str(override.value()) in known:
            known[str(override.value())].check_installed(str(override.input_line))


def check(config: DictConfig) -> None:
    """Raise `UsageError` for a launcher under torchrun, for invalid launcher settings, or if Slurm cannot run."""
    launcher = chosen(str(config.hydra.launcher._target_))
    if launcher is not None and torchrun.processes() is not None:
        raise UsageError(f"{LAUNCHER}={launcher.name}: torchrun's processes train each run together; leave it out")
    path = schema.conf_folder() / LAUNCHER / f"{launcher.name}.yaml" if launcher else None
    if path is not None and path.exists():
        settings: Any = OmegaConf.to_container(config.hydra.launcher, resolve=False)
        known = OmegaConf.to_container(OmegaConf.load(path))
        checks.check_values({"hydra": {"launcher": settings}}, {"hydra": {"launcher": known}})
    if launcher is SLURM:
        check_slurm(config)


def chosen(target: str) -> Launcher | None:
    """Return the launcher with Hydra's `_target_`; None if it needs no package or is unknown."""
    return next((launcher for launcher in LAUNCHERS if target.startswith(f"{launcher.plugin}.")), None)


def check_slurm(config: DictConfig) -> None:
    """Raise `UsageError` if Slurm is not available, or for settings that its jobs do not support."""
    launcher, line = config.hydra.launcher, f"{LAUNCHER}={SLURM.name}"
    if launcher._target_.endswith(".LocalLauncher"):
        raise UsageError(f"{LAUNCHER}=submitit_local: jobs_per_device= runs jobs in parallel on this machine")
    SLURM.check_installed(line)
    for command in ("sbatch", "srun", "squeue"):
        if shutil.which(command) is None:
            raise UsageError(f"{line} needs Slurm's {command}, which is not found; run the command on a login node")
    for key in ("nodes", "tasks_per_node"):
        if launcher[key] != 1:
            raise UsageError(f"hydra.launcher.{key}={launcher[key]}: a run of a sweep is one process; leave it at 1")
    size = config.hydra.sweeper.max_batch_size
    if size is not None and size < 1:
        raise UsageError(f"hydra.sweeper.max_batch_size={size}: it takes a positive number of jobs")
    delay, minutes = launcher["signal_delay_s"], launcher["timeout_min"]
    if delay >= 60 * minutes:
        raise UsageError(
            f"hydra.launcher.signal_delay_s={delay} leaves no time within timeout_min={minutes}; "
            f"set it to the seconds that a step and a save take"
        )
    if config.jobs_per_device > 1:
        raise UsageError(_on_this_machine(config.jobs_per_device))


def side_by_side(config: DictConfig) -> tuple[int, list[str]]:
    """Return the number of jobs of a sweep that run in parallel, and Hydra's overrides for that.

    Args:
        config: A composed job with the `hydra` node.

    Raises:
        ValueError: The launcher does not run jobs on this machine, parallel jobs need several devices each, or the
            launcher's package is missing.
    """
    number, words = _planned(config)
    if number > 1 and processes(config) != 1:
        devices = config.trainer.devices
        raise UsageError(
            f"trainer.devices={devices}: {number} parallel jobs have one device each; leave one of them out"
        )
    return number, words


def _planned(config: DictConfig) -> tuple[int, list[str]]:
    launcher, per_device = config.hydra.launcher, config.jobs_per_device
    is_joblib = chosen(str(launcher._target_)) is JOBLIB
    if is_joblib and launcher.n_jobs == 0:
        raise UsageError("hydra.launcher.n_jobs=0: it takes a number of jobs, or -1 for one per core")
    if is_joblib and launcher.n_jobs > 0:
        return launcher.n_jobs, []
    if per_device > 1:
        if not is_joblib and "BasicLauncher" not in launcher._target_:
            raise UsageError(_on_this_machine(per_device))
        JOBLIB.check_installed(f"jobs_per_device={per_device}")
        from cifar_lab.machine import hardware

        number = per_device * hardware.device_count(config.trainer.accelerator)
    elif is_joblib:
        number = max(1, cores() + 1 + launcher.n_jobs)
    else:
        return 1, []
    return number, [f"{LAUNCHER}=joblib", f"hydra.launcher.n_jobs={number}"]


def _on_this_machine(per_device: int) -> str:
    return f"jobs_per_device={per_device} runs jobs on this machine; leave {LAUNCHER}= out"
