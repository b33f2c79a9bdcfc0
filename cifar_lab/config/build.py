"""Build the object that a composed option describes."""

import math
from collections.abc import Mapping
from fractions import Fraction
from traceback import extract_tb
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from cifar_lab import current
from cifar_lab.machine.exit_codes import UsageError


def build(option: DictConfig, **arguments: Any) -> Any:
    """Instantiate the `_target_` of an option with plain Python values; `arguments` override the option's.

    Returns None for an option without `_target_`, such as `logger=none`.
    """
    if "_target_" not in option:
        return None
    return _instantiated(option, **{**arguments, "_target_": current(option["_target_"])})


GROUPING = ("relative_lr", "decay_norms", "decay_by_rate")  # keys that split the parameters into groups
_EPOCHS = ("T_max", "T_0", "step_size", "total_iters", "warmup_epochs")


def build_optimizer(option: DictConfig) -> Any:
    """Return the `cifar_lab.optimizers.Grouped` of an option, to be called with a network."""
    arguments: dict[str, Any] = dict(option)
    arguments["_target_"] = current(arguments["_target_"])
    grouping = {key: arguments.pop(key) for key in GROUPING if key in arguments}
    return _instantiated({"_target_": "cifar_lab.optimizers.Grouped", "factory": arguments, **grouping})


def build_scheduler(option: Mapping[str, Any], total_steps: int, epochs: float) -> dict[str, Any]:
    """Return Lightning's dictionary for a scheduler, with a factory for the scheduler itself.

    Args:
        option: Arguments of torch's scheduler, with lengths in epochs, and Lightning's arguments under `lightning`.
        total_steps: Optimizer steps of the whole run. With `interval: step`, lengths are converted to steps.
        epochs: Number of epochs of the whole run.
    """
    arguments: dict[str, Any] = dict(option)
    lightning: Mapping[str, Any] = arguments.pop("lightning")
    is_by_step = lightning["interval"] == "step"
    if "pct_start" in arguments:  # torch refuses an int
        arguments["pct_start"] = float(arguments["pct_start"])
    if "total_steps" in arguments and arguments["total_steps"] is None:
        arguments["total_steps"] = total_steps if is_by_step else math.ceil(epochs)
    elif arguments.get("total_steps", total_steps) < total_steps:
        raise UsageError(f"scheduler.total_steps={arguments['total_steps']}: the run has {total_steps}; set it to null")
    if (share := arguments.get("pct_start")) is not None and share * arguments["total_steps"] == 1:
        steps = arguments["total_steps"]
        raise UsageError(
            f"scheduler.pct_start={share:g} of {steps} steps is a warm-up of one step, for which torch's OneCycleLR "
            "divides by zero; set a different share, such as 0"
        )
    if is_by_step:
        each = total_steps / Fraction(str(epochs))
        arguments |= {key: math.floor(Fraction(str(arguments[key])) * each) for key in _EPOCHS if key in arguments}
    return {**lightning, "scheduler": _instantiated(arguments)}


def _instantiated(option: Any, **arguments: Any) -> Any:
    try:
        return instantiate(option, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError):  # an invalid argument, which is a user's setting
            raise UsageError(str(cause)) from None
        # A TypeError raised by Hydra's own call: the arguments do not fit the signature.
        if isinstance(cause, TypeError) and "/hydra/" in extract_tb(cause.__traceback__)[-1].filename:
            raise UsageError(str(cause)) from None
        raise cause from None
