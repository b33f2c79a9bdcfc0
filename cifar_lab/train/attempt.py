"""One try at training a run: whether there is something to do, from where, and what each process needs for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.config import names_run
from cifar_lab.engines.handover import RunFailedError, Turn
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run, first_whole, locked, read_checkpoint
from cifar_lab.runs.fingerprints import is_looser

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class Attempt:
    """One try at training a run.

    Attributes:
        run: Where to write.
        turn: Place in a sweep; None for a single run.
        interruption: Notes signals.
        checkpoint: Where to resume; None starts from the beginning.
        goes_beyond: Whether it trains on although a limit had ended it.
        callbacks: Lightning's, called after the run's own.
    """

    run: Run
    turn: Turn | None = None
    interruption: Interruption = field(default_factory=Interruption)
    checkpoint: Path | None = None
    goes_beyond: bool = False
    callbacks: tuple["Callback", ...] = ()


@dataclass(frozen=True)
class Work:
    """All that a process needs to train a run. It is sent to processes that have not imported torch yet.

    Attributes:
        config: The resolved configuration, plain values.
        attempt: Where to write, and what to resume from.
        options: The chosen option of each group.
        overrides: The command line.
        hyperparameters: What distinguishes the run from others.
        threads: Per process.
    """

    config: Mapping[str, Any]
    attempt: Attempt
    options: Mapping[str, str | None]
    overrides: Sequence[str]
    hyperparameters: Mapping[str, bool | float | str]
    threads: int


def is_done(run: Run, config: Mapping[str, Any], turn: Turn | None) -> bool:
    """Whether a run that may be resumed has finished with at least the epochs of the configuration.

    Raises:
        RunFailedError: It failed or diverged, and `retry_failed` or `retry_diverged` forbids another try.
    """
    if turn is None and config["resume"] is None:
        return False
    status = run.status()
    state = status.get("state")
    if state in ("failed", "diverged") and not config[f"retry_{state}"]:
        raise RunFailedError(f"{run.folder} has {state}: {status.get('error', '')}; retry_{state}=true trains it again")
    return run.has_result() and config["epochs"] <= run.config()["epochs"] and not goes_beyond(run, config)


def goes_beyond(run: Run, config: Mapping[str, Any]) -> bool:
    """Whether a run that a limit has ended before its last epoch may take longer now."""
    return run.has_result() and run.result()["epochs"] < config["epochs"] and is_looser(config, run.config())


def set_aside(run: Run, config: Mapping[str, Any]) -> None:
    """Move an ended run aside for `retrain=true`; raises `LockedError` if another process trains it."""
    if config["retrain"] and run.status_file.exists():
        with locked(run.lock_file):
            pass
        run.set_aside()


def checkpoint_of(run: Run, config: Mapping[str, Any], turn: Turn | None) -> Path | None:
    """The checkpoint from which a run, whose lock is held, resumes; None to start from the beginning.

    Raises:
        RunFailedError: `resume=` names a run without a readable checkpoint.
    """
    if (turn is None and config["resume"] is None) or run.status().get("state") == "diverged":
        return None
    paths = [run.last_checkpoint, run.previous_checkpoint]
    if goes_beyond(run, config) and first_whole(paths[:1])[0] and read_checkpoint(paths[0]).get("is_cut"):
        del paths[0]  # a limit of time has cut its epoch
    path, reasons = first_whole(paths)
    if path is None and names_run(config["resume"]):
        raise RunFailedError("; ".join(reasons) or f"{run.folder} has no checkpoint to go on from", exit_codes.USAGE)
    for reason in reasons:
        print(f"note: {reason}; going on from {path.name if path else 'the beginning'}", flush=True)
    return path
