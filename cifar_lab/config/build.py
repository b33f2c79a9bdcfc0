"""From a composed option to the object that it describes."""

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from cifar_lab import current
from cifar_lab.machine.exit_codes import UsageError


def build(option: DictConfig, **arguments: Any) -> Any:
    """Make what `_target_` names, with plain Python values; `arguments` add to the option's or replace them.

    An option without `_target_`, such as `logger=none`, is None.
    """
    if "_target_" not in option:
        return None
    return _instantiated(option, **{**arguments, "_target_": current(option["_target_"])})


def build_scheduler(option: DictConfig, total_steps: int) -> dict[str, Any]:
    """Lightning's dictionary for a scheduler, with a factory for the scheduler itself.

    Args:
        option: Arguments of torch's scheduler, and Lightning's own under `lightning`.
        total_steps: Optimizer steps of the whole run, for a scheduler that is stepped after each of them.
    """
    arguments: dict[str, Any] = dict(option)
    lightning: Mapping[str, Any] = arguments.pop("lightning")
    if "total_steps" in arguments and arguments["total_steps"] is None:
        arguments["total_steps"] = total_steps
    return {**lightning, "scheduler": _instantiated(arguments)}


def _instantiated(option: Any, **arguments: Any) -> Any:
    try:
        return instantiate(option, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError):  # about one of its arguments, which are the user's settings
            raise UsageError(str(cause)) from None
        raise cause from None
