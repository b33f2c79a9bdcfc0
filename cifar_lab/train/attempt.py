"""One try at training a run: whether there is something to do, and from where."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.config import names_run
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.engines.jobs import Turn
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run, first_whole

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class Attempt:
    """One try at training a run.

    Attributes:
        run: Where to write.
        turn: Whose turn it is in a sweep; None for a single run.
        interruption: Notes signals.
        checkpoint: What it goes on from; None begins anew.
        callbacks: Lightning's, called after the run's own.
    """

    run: Run
    turn: Turn | None = None
    interruption: Interruption = field(default_factory=Interruption)
    checkpoint: Path | None = None
    callbacks: tuple["Callback", ...] = ()


def is_done(run: Run, config: Mapping[str, Any], turn: Turn | None) -> bool:
    """Whether a run that may be gone on with has finished, and is not to be given more epochs.

    Args:
        run: The run.
        config: With `resume`, `epochs`, `retry_failed` and `retry_diverged`.
        turn: Whose turn it is in a sweep.

    Raises:
        RunFailedError: It has failed or diverged, and is not to be trained again.
    """
    if turn is None and config["resume"] is None:
        return False
    status = run.status()
    state = status.get("state")
    if state in ("failed", "diverged") and not config[f"retry_{state}"]:
        raise RunFailedError(f"{run.folder} has {state}: {status.get('error', '')}; retry_{state}=true trains it again")
    return run.has_result() and config["epochs"] <= run.config()["epochs"]


def checkpoint_of(run: Run, config: Mapping[str, Any], turn: Turn | None) -> Path | None:
    """The checkpoint that a run goes on from; None where it begins anew.

    Args:
        run: The run, whose lock is held.
        config: With `resume`.
        turn: Whose turn it is in a sweep.

    Raises:
        RunFailedError: `resume=` names a run that has none that can be read.
    """
    if (turn is None and config["resume"] is None) or run.status().get("state") == "diverged":
        return None
    path, reasons = first_whole([run.last_checkpoint, run.previous_checkpoint])
    if path is None and names_run(config["resume"]):
        raise RunFailedError("; ".join(reasons) or f"{run.folder} has no checkpoint to go on from", exit_codes.USAGE)
    for reason in reasons:
        print(f"note: {reason}; going on from {path.name if path else 'the beginning'}", flush=True)
    return path
