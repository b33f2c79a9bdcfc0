"""The weights that a run has kept of its epochs, and those that it ended with."""

import re
from pathlib import Path
from typing import Any

from cifar_lab.runs.checkpoints import read_checkpoint
from cifar_lab.runs.run import Run

_SNAPSHOT = re.compile(r"epoch_(\d+)\.pt")
_PREFIX = "model."  # of the network's own names in a checkpoint


def snapshots(run: Run) -> dict[int, Path]:
    """The files of plain state dicts by epoch, rising; 0 holds the initial weights."""
    found = ((path, _SNAPSHOT.fullmatch(path.name)) for path in (run.folder / "snapshots").glob("*.pt"))
    return dict(sorted((int(match[1]), path) for path, match in found if match))


def final_state(run: Run) -> dict[str, Any]:
    """The plain state dict that a run ended with: of its last snapshot, else of its last checkpoint.

    Where neither is left, as in an archive, that of the chosen epoch, under `weights/`.

    Raises:
        ValueError: There are none, or they are damaged.
    """
    kept = list(snapshots(run).values())
    if kept:
        return read_checkpoint(kept[-1])
    if run.last_checkpoint.exists():
        state = read_checkpoint(run.last_checkpoint)["state_dict"]
        return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    chosen = sorted(run.weights.glob("*.pth"))
    if not chosen:
        raise ValueError(f"{run.folder} holds no weights, neither snapshots nor checkpoints; train it again")
    return read_checkpoint(chosen[-1])
