"""An attempt at training a run: deciding whether to train and from which checkpoint, and the task of each process."""

import functools
import math
import operator
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.config import check_epochs, listed, names_run
from cifar_lab.engines.handover import RunFailedError, Turn
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import CheckpointError, Run, UnreadableError, first_whole, locked, read_checkpoint
from cifar_lab.runs.fingerprints import differences, is_looser
from cifar_lab.runs.labels import LAST
from cifar_lab.runs.run import REPLACED

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class Attempt:
    """One attempt at training a run."""

    run: Run
    turn: Turn | None = None  # place in a sweep; None for a single run
    interruption: Interruption = field(default_factory=Interruption)
    checkpoint: Path | None = None  # to resume from; None starts from the beginning
    goes_beyond: bool = False  # whether to continue past the limit that ended training
    callbacks: tuple["Callback", ...] = ()  # Lightning callbacks, called after the run's own


@dataclass(frozen=True)
class TrainingTask:
    """All that a process needs to train a run. It is pickled for processes that have not imported torch yet."""

    config: Mapping[str, Any]  # resolved, plain values
    attempt: Attempt
    options: Mapping[str, str | None]  # the chosen option of each group
    overrides: Sequence[str]  # the command line
    hyperparameters: Mapping[str, bool | float | str]  # the settings that distinguish the run from others
    threads: int  # per process


def is_done(run: Run, config: Mapping[str, Any], turn: Turn | None) -> bool:
    """Return whether a resumable run has finished with at least the epochs of the configuration.

    Raises:
        RunFailedError: The run failed or diverged, and `retry_failed` or `retry_diverged` forbids a retry; or the
            folder contains a different run.
    """
    begins_anew = turn is None and config["resume"] is None
    if not names_run(config["resume"]) and (run.has_begun() or not begins_anew):
        folder = "hydra.run.dir" if turn is None else "hydra.sweep.subdir"
        _check_same(run, config, folder, but=() if begins_anew else ("epochs",))
    if begins_anew:
        return False
    status = run.status()
    state = status.get("state")
    if state in ("failed", "diverged") and not config[f"retry_{state}"]:
        raise RunFailedError(f"{run.folder} has {state}: {status.get('error', '')}; retry_{state}=true trains it again")
    return run.has_result() and config["epochs"] <= run.config().get("epochs", 0) and not goes_beyond(run, config)


def _check_same(run: Run, config: Mapping[str, Any], folder: str, but: Collection[str]) -> None:
    """Raise `RunFailedError` if the run's folder contains a different run than `config` describes.

    Differences in the keys of `but` are allowed. `folder` is the setting that names the folder, for the message.
    """
    if not (run.status() and run.config_file.exists()):
        return
    try:
        saved = run.config()
    except UnreadableError:
        return  # reported or repaired when training starts
    try:
        changed = differences(saved, config)
        if changed.keys() - set(but):
            raise UsageError(
                f"{run.folder} has a different run: {listed(changed)}; set {folder}= to a different folder"
            )
        if config["epochs"] > saved.get("epochs", math.inf):
            check_epochs(run, saved, config["epochs"])
    except UsageError as error:
        raise RunFailedError(str(error), exit_codes.USAGE) from None


def goes_beyond(run: Run, config: Mapping[str, Any]) -> bool:
    """Return whether a limit ended the run before its last epoch and the configuration now relaxes that limit."""
    return run.has_result() and run.result()["epochs"] < config["epochs"] and is_looser(config, run.config())


def set_aside(run: Run, config: Mapping[str, Any], turn: Turn | None) -> None:
    """Move a run aside if `retrain=true`, unless it is an unfinished run that the same command resumes.

    Raises:
        LockedError: Another process is training it.
    """
    goes_on = turn is not None or config["resume"] is not None
    if config["retrain"] and run.status_file.exists() and not (goes_on and run.is_under_way()):
        with locked(run.lock_file):
            run.set_aside()


def checkpoint_of(run: Run, config: Mapping[str, Any], turn: Turn | None) -> Path | None:
    """Return the checkpoint to resume from; None to start from the beginning. The caller holds the lock.

    This is the last checkpoint, or the previous one if the last one or the records up to it are damaged. If neither
    can be used, the run is moved aside and restarted.

    Raises:
        RunFailedError: `resume=` names a run without a checkpoint to resume from.
    """
    if (turn is None and config["resume"] is None) or run.status().get("state") == "diverged":
        return None
    paths = [run.last_checkpoint, run.previous_checkpoint]
    if goes_beyond(run, config) and first_whole(paths[:1])[0] and read_checkpoint(paths[0]).get("is_cut"):
        del paths[0]  # a time limit cut its last epoch short
    path, reasons = first_whole(paths, lambda path: _check_goes_on(run, config, path))
    if path is None and names_run(config["resume"]):
        reason = "; ".join(reasons) or f"{run.folder} has no checkpoint to resume from"
        raise RunFailedError(f"{reason}; {trains_again(run)}", exit_codes.USAGE)
    if path is not None and run.status().get("state") == "unreadable":
        reasons.append(f"{run.status()['error']}; using this machine's precision and number of threads")
    for reason in reasons:
        print(f"note: {reason}; resuming from {path.name if path else 'the beginning'}", flush=True)
    if path is None and reasons:
        print(f"note: the old files are in {os.path.relpath(run.set_aside())}", flush=True)
    return path


def _check_goes_on(run: Run, config: Mapping[str, Any], path: Path) -> None:
    """Raise `UsageError` unless the checkpoint and the records up to it can be read."""
    saved = read_checkpoint(path)
    try:
        epochs = int(saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
        steps = int(saved["global_step"]) - len(saved["callbacks"]["Recorder"]["steps"])
    except (KeyError, TypeError):
        raise CheckpointError(f"{path} is not a checkpoint of a run") from None
    run.check_records(epochs, steps, has_best=config["protocol"]["name"] != LAST)


def trains_again(run: Run, turn: Turn | None = None) -> str:
    """Explain in a line how to train an unusable run again."""
    command = "the same command with" if turn else f"its own command with hydra.run.dir={quoted(run.folder)} and"
    return f"{command} retrain=true trains it again and keeps the old folder in {REPLACED}/"


def quoted(folder: Path) -> str:
    """Return the relative path of a folder, quoted for a shell."""
    return shlex.quote(os.path.relpath(folder))


# Settings that do not affect a run's numbers.
_NO_HYPERPARAMETERS = ("name", "logger", "tags", "allow", "published", "data.root", "trainer.enable_progress_bar")


def hyperparameters(
    config: Mapping[str, Any],
    options: Mapping[str, str | None],
    overrides: Sequence[str],
    common: Collection[str] | None = None,
) -> dict[str, bool | float | str]:
    """Return the hyperparameters for loggers: in a sweep its axes, else model, loss, optimizer and typed settings.

    Args:
        config: The resolved configuration, plain values.
        options: The chosen option of each group.
        overrides: The run's command line, as `key=value`.
        common: Keys that all jobs of the sweep share; None for a single run.

    Returns:
        For each key, the chosen option of a group or a value of the configuration, as text unless it is a bool or a
        number. The seed is always included, as text, because it is a label and not a quantity.
    """
    typed = [override.lstrip("+").partition("=")[0] for override in overrides]
    if common is None:
        left_out = [key for key in typed if any(f"{key}.".startswith(f"{name}.") for name in _NO_HYPERPARAMETERS)]
        keys = ["model", "loss", "optimizer", *(key for key in typed if key not in left_out)]
    else:
        keys = [key for key in typed if key not in {"name", *common}]
    columns: dict[str, bool | float | str] = {}
    for key in keys:
        value: Any = options[key] if key in options else functools.reduce(operator.getitem, key.split("."), config)
        is_plain = isinstance(value, bool | int | float | str)
        columns[key] = value if is_plain else "null" if value is None else str(value)
    return {**columns, "seed": str(config["seed"])}
