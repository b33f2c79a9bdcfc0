"""Studies: whole sweeps in a file, `conf/study/*.yaml`, whose axes the command line may narrow or extend.

`study=loss` is short for `--multirun` and the axes of its file.
"""

from collections.abc import Iterable
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from cifar_lab.config.precedence import Loader
from cifar_lab.machine.exit_codes import UsageError

GROUP = "study"


def chosen(overrides: Iterable[Override], group: str = GROUP) -> Override | None:
    """Return the override that chooses a study or search, or None; raise `UsageError` if there are several."""
    typed = [override for override in overrides if override.key_or_group == group]
    if len(typed) > 1 or any(override.is_sweep_override() for override in typed):
        line = " ".join(str(override.input_line) for override in typed)
        raise UsageError(f"{line}: one {group} at a time, because each has its own axes")
    return typed[0] if typed else None


def axes(choice: str, loader: Loader, search: list[str]) -> list[Override]:
    """Return the axes of a study as overrides, in the order of its file.

    Raises:
        ValueError: Its file has no axes, or their format is wrong.
        hydra.errors.HydraException: The study cannot be composed.
    """
    hydra = compose("train", [choice, *search], return_hydra_config=True).hydra
    varied = as_overrides(choice, loader.axes, loader)
    if hydra.mode is not None or hydra.sweeper.get("params"):
        raise UsageError(f"{choice}: its file sets hydra.mode or hydra.sweeper; a study has `axes:`")
    return varied


def options_of_axes(axes: Iterable[Override], overrides: Iterable[Override], loader: Loader) -> list[str]:
    """Return the options that the axes of the last composed study belong to, such as `loss=label_smoothing`.

    They are added to a command line with an experiment, because the experiment's options would otherwise take
    precedence. Typed options still do.
    """
    typed = {override.key_or_group for override in overrides}
    groups = {axis.key_or_group.partition(".")[0] for axis in axes} - typed
    if "experiment" not in typed:
        return []
    return [f"{group}={option}" for group, option in loader.study_options.items() if group in groups]


def as_overrides(choice: str, content: Any, loader: Loader) -> list[Override]:
    """Parse the `axes:` of the file that `choice` names as overrides; raise `UsageError` if they are not axes."""
    listed = content.values() if isinstance(content, dict) else ()
    if not listed or any(values in ([], "") or isinstance(values, dict) for values in listed):
        raise UsageError(
            f"{choice}: its file needs axes under `axes:`, such as `loss: [ce, mse]` and `seed: range(0,3)`"
        )
    lines = [f"{key}={as_typed(values)}" for key, values in content.items()]
    return OverridesParser.create(config_loader=loader).parse_overrides(lines)


def as_typed(values: Any) -> str:
    """Return the values of an axis as typed after `key=` on a command line.

    >>> as_typed([[16, 32], True, None, "ce"])
    '[16,32],true,null,ce'
    """
    return ",".join(map(_word, values)) if isinstance(values, list) else _word(values)


def expanded(overrides: Iterable[Override], study: Override, axes: Iterable[Override]) -> list[str]:
    """Append the axes of a study to its command line; a typed axis replaces the study's.

    Axes keep the study's order, and a single value becomes a sweep over one value, so a run's folder has the same name
    whichever part of the study is run.
    """
    overrides, axes = list(overrides), list(axes)
    typed: dict[str, list[str]] = {axis.key_or_group: [] for axis in axes}
    for override in overrides:
        if override.key_or_group in typed:
            typed[override.key_or_group].append(_swept(override))
    lines = []
    for override in overrides:
        if override.key_or_group not in typed:
            lines.append(str(override.input_line))
        if override is study:
            for axis in axes:
                lines += typed[axis.key_or_group] or [_swept(axis)]
    return lines


def _swept(override: Override) -> str:
    line = str(override.input_line)
    key, _, value = line.partition("=")
    return line if override.is_delete() or override.is_sweep_override() or not value else f"{key}=choice({value})"


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
