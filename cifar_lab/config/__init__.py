"""Compose and check a command line with Hydra and OmegaConf."""

from cifar_lab.config.build import build, build_optimizer, build_scheduler
from cifar_lab.config.command_line import Plan
from cifar_lab.config.devices import UNSYNCED, here
from cifar_lab.config.naming import class_names, interpolations, resolved
from cifar_lab.config.preflight import checked
from cifar_lab.config.resume import check_epochs, listed, merged, names_run, saved
from cifar_lab.config.schema import conf_folder, register

register()

__all__ = [
    "UNSYNCED",
    "Plan",
    "build",
    "build_optimizer",
    "build_scheduler",
    "check_epochs",
    "checked",
    "class_names",
    "conf_folder",
    "here",
    "interpolations",
    "listed",
    "merged",
    "names_run",
    "resolved",
    "saved",
]
