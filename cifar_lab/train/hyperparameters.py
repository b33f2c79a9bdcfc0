"""What tells a run from others in a table of runs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

# What a command line may set and no number depends on.
_NO_HYPERPARAMETERS = ("name", "logger", "allow", "published", "data.root", "trainer.enable_progress_bar")


def hyperparameters(
    config: Mapping[str, Any],
    options: Mapping[str, str | None],
    overrides: Sequence[str],
    common: Collection[str] | None = None,
) -> dict[str, bool | float | str]:
    """The columns of a run: in a sweep its axes, alone what its command line set and what every run has.

    Args:
        config: The resolved configuration, plain values.
        options: The chosen option of each group.
        overrides: The run's command line, `key=value` each.
        common: The keys that all jobs of the run's sweep share; None for a run of its own.

    Returns:
        By key: the chosen option of a group, or a value of the configuration; what is neither true, false, a number
        nor a word as text. The seed is always there, as a word, since it is a label and no quantity, and outside a
        sweep model, loss and optimizer are too.
    """
    typed = [override.lstrip("+").partition("=")[0] for override in overrides]
    if common is None:
        keys = ["model", "loss", "optimizer", *(key for key in typed if not _is_left_out(key))]
    else:
        keys = [key for key in typed if key not in {"name", *common}]
    values = {key: _plain(options[key] if key in options else _value(config, key)) for key in keys}
    return {**values, "seed": str(config["seed"])}


def _is_left_out(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _NO_HYPERPARAMETERS)


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value[name]
    return value


def _plain(value: Any) -> bool | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    return "null" if value is None else str(value)
