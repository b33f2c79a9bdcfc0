"""Hydra's launchers that this project knows, each in a package of its own."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import checks, schema
from cifar_lab.machine import torchrun
from cifar_lab.machine.exit_codes import UsageError

LAUNCHER = "hydra/launcher"


@dataclass(frozen=True)
class Launcher:
    """What hands the jobs of a sweep to processes.

    Attributes:
        name: As in `hydra/launcher=name`.
        plugin: The package with Hydra's plugin.
        distribution: What pip calls it.
        extra: Of this project, that brings it.
    """

    name: str
    plugin: str
    distribution: str
    extra: str

    def check_installed(self, line: str) -> None:
        """Refuse a command line that needs it where it is missing.

        Args:
            line: The word of the command line.

        Raises:
            ValueError: In one line that says how to get it.
        """
        try:
            found = importlib.util.find_spec(self.plugin)
        except ModuleNotFoundError:
            found = None
        if found is None:
            how = f"pip install 'cifar-lab[{self.extra}]'"
            raise UsageError(f"{line} needs {self.distribution}, which is not installed: {how}")


JOBLIB = Launcher("joblib", "hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher", "joblib")
RAY = Launcher("ray", "hydra_plugins.hydra_ray_launcher", "hydra-ray-launcher", "ray")
SLURM = Launcher("submitit_slurm", "hydra_plugins.hydra_submitit_launcher", "hydra-submitit-launcher", "slurm")
LAUNCHERS = (JOBLIB, RAY, SLURM)


def check_launcher(overrides: Sequence[Override]) -> None:
    """Refuse a launcher whose package is missing, before Hydra looks for it.

    Raises:
        ValueError: In one line that says how to get it.
    """
    known = {launcher.name: launcher for launcher in LAUNCHERS}
    for override in overrides:
        if override.key_or_group == LAUNCHER and str(override.value()) in known:
            known[str(override.value())].check_installed(str(override.input_line))


def check(config: DictConfig) -> None:
    """Refuse a composed job's launcher under torchrun, and settings that it cannot take, where its options are ours.

    Raises:
        ValueError: In one line.
    """
    launcher = chosen(str(config.hydra.launcher._target_))
    if launcher is not None and torchrun.processes() is not None:
        raise UsageError(f"{LAUNCHER}={launcher.name}: torchrun's processes train each run together; leave it out")
    path = schema.conf_folder() / LAUNCHER / f"{launcher.name}.yaml" if launcher else None
    if path is not None and path.exists():
        settings: Any = OmegaConf.to_container(config.hydra.launcher, resolve=False)
        known = OmegaConf.to_container(OmegaConf.load(path))
        checks.check_values({"hydra": {"launcher": settings}}, {"hydra": {"launcher": known}})


def chosen(target: str) -> Launcher | None:
    """The launcher of which Hydra's `_target_` is; None for one that needs no package, and one not known here."""
    return next((launcher for launcher in LAUNCHERS if target.startswith(f"{launcher.plugin}.")), None)
