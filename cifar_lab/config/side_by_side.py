"""How many jobs of a sweep run at a time on this machine."""

from omegaconf import DictConfig

from cifar_lab.config.devices import processes
from cifar_lab.config.launchers import JOBLIB, LAUNCHER, chosen
from cifar_lab.machine.cores import cores
from cifar_lab.machine.exit_codes import UsageError


def plan(config: DictConfig) -> tuple[int, list[str]]:
    """How many jobs of a sweep run at a time, and the words of the command line by which Hydra does that.

    Args:
        config: A composed job, with Hydra's own part.

    Raises:
        ValueError: The launcher is not one for this machine or for runs on several devices, or its package is missing.
    """
    number, words = _planned(config)
    if number > 1 and processes(config) != 1:
        devices = config.trainer.devices
        raise UsageError(
            f"trainer.devices={devices}: {number} jobs at a time have one device each; leave one of them out"
        )
    return number, words


def _planned(config: DictConfig) -> tuple[int, list[str]]:
    launcher, per_device = config.hydra.launcher, config.jobs_per_device
    is_joblib = chosen(str(launcher._target_)) is JOBLIB
    if is_joblib and launcher.n_jobs == 0:
        raise UsageError("hydra.launcher.n_jobs=0: it takes a number of jobs, or -1 for as many as there are cores")
    if is_joblib and launcher.n_jobs > 0:
        return launcher.n_jobs, []
    if per_device > 1:
        if not is_joblib and "BasicLauncher" not in launcher._target_:
            raise UsageError(f"jobs_per_device={per_device} runs jobs on this machine; leave {LAUNCHER}= out")
        JOBLIB.check_installed(f"jobs_per_device={per_device}")
        from cifar_lab.machine import hardware

        number = per_device * hardware.device_count(config.trainer.accelerator)
    elif is_joblib:
        number = max(1, cores() + 1 + launcher.n_jobs)
    else:
        return 1, []
    return number, [f"{LAUNCHER}=joblib", f"hydra.launcher.n_jobs={number}"]
