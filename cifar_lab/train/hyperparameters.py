"""A run's settings as columns of a table of runs."""

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

# Settings of a command line on which no number depends.
_NO_HYPERPARAMETERS = ("name", "logger", "allow", "published", "data.root", "trainer.enable_progress_bar")


def hyperparameters(
    config: Mapping[str, Any],
    options: Mapping[str, str | None],
    overrides: Sequence[str],
    common: Collection[str] | None = None,
) -> dict[str, bool | float | str]:
    """The columns of a run: in a sweep its axes, otherwise model, loss, optimizer and the settings of its command line.

    Args:
        config: The resolved configuration, plain values.
        options: The chosen option of each group.
        overrides: The run's command line, `key=value` each.
        common: The keys that all jobs of the run's sweep share; None for a single run.

    Returns:
        By key: the chosen option of a group, or a value of the configuration, as text unless it is a bool or a number.
        The seed is always included, as text, because it is a label rather than a quantity.
    """
    typed = [override.lstrip("+").partition("=")[0] for override in overrides]
    if common is None:
        left_out = [key for key in typed if any(f"{key}.".startswith(f"{name}.") for name in _NO_HYPERPARAMETERS)]
        keys = ["model", "loss", "optimizer", *(key for key in typed if key not in left_out)]
    else:
        keys = [key for key in typed if key not in {"name", *common}]
    values = {
        key: _plain(options[key] if key in options else functools.reduce(operator.getitem, key.split("."), config))
        for key in keys
    }
    return {**values, "seed": str(config["seed"])}


def _plain(value: Any) -> bool | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    return "null" if value is None else str(value)
