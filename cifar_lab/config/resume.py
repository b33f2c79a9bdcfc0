"""A run's own configuration, to build its components again or to resume it with the same numbers."""

import copy
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lab.config.naming import key_of
from cifar_lab.config.paths import quoted, value_of
from cifar_lab.config.targets import check_targets
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, UnreadableError
from cifar_lab.runs.fingerprints import differences, settings, with_limits
from cifar_lab.runs.reading import reason_of

AUTO = "auto"

# Settings and options of ours. Excludes flags, one of which makes Hydra load a pickle, and Hydra's settings.
_SETTING = re.compile(r"[+~]{0,2}(?!hydra\b)[A-Za-z_][\w./]*(=|$)")


def saved(run: Run, allowed: Iterable[str] = ()) -> DictConfig:
    """Return a run's own configuration, to build its components again.

    Args:
        run: The run, which need not be trusted.
        allowed: Packages whose components may run; the run's folder cannot allow any.

    Raises:
        ValueError: The folder is not a run, or its configuration is damaged or names a component that is not allowed.
    """
    if not run.config_file.exists():
        raise UsageError(f"{run.folder} is not a run; name a run's folder, which has .hydra/config.yaml")
    config = run.config()
    groups = ("data", "model", "loss", "optimizer", "trainer", "protocol", "bn")
    missing = [group for group in groups if group not in config]
    if missing or "${" in str(config):
        what = f"{missing[0]} is missing" if missing else "it has an interpolation, ${...}, instead of a value"
        raise UsageError(f"{run.config_file} is damaged: {what}")
    check_targets(config, allowed, "--allow {}")
    return OmegaConf.create(config)


def named_run(arguments: Sequence[str]) -> Path | None:
    """Return the folder of `resume=FOLDER`; None without `resume=` and for `auto`."""
    values = [value_of(argument) for argument in arguments if argument.startswith("resume=")]
    return Path(values[-1]) if values and values[-1] not in (AUTO, None) else None


def names_run(resume: str | None) -> bool:
    """Return whether `resume` names a run's folder."""
    return resume not in (None, AUTO)


def full_command(arguments: Sequence[str], folder: Path) -> list[str]:
    """Return the command line of a run, overridden by the words typed with `resume=`.

    Only the person who types the command decides what may run: the run's `allow=` is ignored, and a Hydra setting is
    refused.

    Raises:
        ValueError: There is no run in the folder, or its recorded command line is not valid.
    """
    run = Run(folder)
    if not run.config_file.exists():
        raise UsageError(f"resume={folder} is not a run; name a run's folder, which has .hydra/config.yaml")
    try:
        run.config()
        overrides = run.overrides()
    except (UnreadableError, FileNotFoundError) as error:
        how = "retrain=true trains it again" if run.result_file.exists() else "resume=auto continues it"
        way = f"its own command with hydra.run.dir={shlex.quote(str(folder))} and {how}"
        raise UsageError(f"resume={folder}: {reason_of(error)}; {way}") from None
    typed = {key_of(argument) for argument in arguments}
    # A newly chosen option has its own settings, so the settings of the old option are dropped.
    saved = [line for line in overrides if not {key_of(line), key_of(line).partition(".")[0]} & {*typed, "allow"}]
    foreign = [line for line in saved if not _SETTING.match(line)]
    if foreign:
        word = f"{foreign[0][:80]!r}, which no run writes"
        raise UsageError(f"resume={folder}: {run.composition_file} contains {word}")
    return [*saved, *arguments, f"hydra.run.dir={quoted(folder)}"]


def merged(run: Run, composed: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Merge a run's own configuration with the typed settings that may differ: folders, devices, loggers.

    Args:
        run: The run to resume.
        composed: The current composition of the whole command line, in plain values.
        typed: The words typed with `resume=`.

    Raises:
        ValueError: Typed settings would change numbers (the message lists them), or the run's configuration is damaged
            or names a component that is not allowed.
    """
    saved = run.config()
    _check_saved(run, saved, composed)
    if composed["weights"] == saved.get("weights"):  # the run has loaded them already, so their file may be gone
        composed = {**composed, "weights_digest": saved.get("weights_digest")}
    keys = {key_of(line) for line in typed}
    differing = differences(saved, composed, with_hardware=False)
    changed = {key: values for key, values in differing.items() if {key, key.partition(".")[0]} & keys}
    result = copy.deepcopy(dict(composed))
    for key, value in saved.items():
        now_hashed, hashed = (
            settings({key: option, "grad_clip": 0}, with_hardware=False).get(key)
            for option in (composed.get(key), value)
        )
        result[key] = _with_settings(composed.get(key), now_hashed, value, hashed)
    result["grad_clip"] = saved["grad_clip"]
    if changed.pop("epochs", None):
        check_epochs(run, saved, composed["epochs"])
        result["epochs"] = composed["epochs"]
    result = with_limits(result, composed)
    if changed:
        raise UsageError(
            f"resume={run.folder}: settings of a different run: {listed(changed)}; leave them out, or start a new run"
        )
    check_targets(result, composed["allow"])
    return result


def _check_saved(run: Run, saved: Mapping[str, Any], composed: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a configuration that no run writes."""
    kinds = {key: isinstance(value, Mapping) for key, value in composed.items()}
    wrong = [key for key in kinds if key in saved and isinstance(saved[key], Mapping) != kinds[key]]
    wrong += [key for key in ("seed", "epochs", "grad_clip") if key not in saved]
    if wrong:
        raise UsageError(f"{run.config_file} is damaged: {wrong[0]} is missing or of the wrong type")
    # Runs write values. An interpolation could hide a `_target_` from the checks.
    if "${" in str(saved):
        raise UsageError(f"{run.config_file} is damaged: it has an interpolation, ${{...}}, instead of a value")


def _with_settings(composed: Any, of_composed: Any, saved: Any, of_saved: Any) -> Any:
    """Combine the saved settings that can change numbers with the composed settings that cannot."""
    if of_saved is None:  # an option that cannot change numbers
        return composed
    if not all(isinstance(option, Mapping) for option in (composed, of_composed, saved, of_saved)):
        return saved
    free = {key: value for key, value in composed.items() if key not in of_composed}
    return {**{key: value for key, value in saved.items() if key in of_saved}, **free}


def listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Describe the settings that differ from a run's."""
    return ", ".join(f"{key} ({before} in the run, {now} typed)" for key, (before, now) in changed.items())


def check_epochs(run: Run, saved: Mapping[str, Any], typed: float) -> None:
    """Raise `UsageError` for fewer epochs, or for more if the schedule or the averaging depends on their number."""
    if typed < saved["epochs"]:
        raise UsageError(f"epochs={typed}: the run has {saved['epochs']}, which can be raised but not lowered")
    if not isinstance(saved["epochs"], int):
        raise UsageError(f"epochs={typed}: the run's {saved['epochs']} epochs end with a partial one; start a new run")
    following = [key for key, source in run.composition()["interpolations"].items() if "${epochs}" in source]
    if saved["scheduler"].get("total_steps", 0) is None:
        following.append("scheduler.total_steps")
    following += [f"averaging.{key}" for key in ("start", "power") if saved["averaging"].get(key)]
    if following:
        raise UsageError(
            f"epochs={typed}: {' and '.join(following)} follows the number of epochs, {saved['epochs']} in the run, "
            f"and cannot be changed afterwards; start a new run with epochs={typed}, or train these weights "
            f"further on a new schedule with weights={run.folder} epochs={typed - saved['epochs']}"
        )
