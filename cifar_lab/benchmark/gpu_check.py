"""All GPU checks in at most five minutes: whole fast runs, plain, compiled and with CUDA graphs."""

import contextlib
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint

from cifar_lab import train
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run
from cifar_lab.terminal.printing import print_table

# 200 steps with the options of a fast recipe.
_FAST = [
    *("data=synthetic", "data.num_train=25000", "data.num_test=1000", "protocol=report", "batch_size=1000", "epochs=8"),
    *("model=speed_cnn", "optimizer=muon", "scheduler=linear", "averaging=lookahead", "augment=alternating_flip"),
    *("trainer=gpu", "trainer.enable_progress_bar=false", "logger=none", "tta=flip_translate"),
]
_FP32, _GRAPHS = "trainer.precision=32-true", ["compile=true", "cuda_graphs=true"]
_SECONDS = 300.0
_LOSSES = 8  # first steps whose losses are compared; later losses diverge because training is chaotic
_MESSAGE = "called a synchronizing CUDA operation"


@dataclass(frozen=True)
class Check:
    """A run and the required agreement of its losses with those of a reference run."""

    words: Sequence[str]
    reference: str | None = None  # name of an earlier check
    tolerance: float = 0.0  # largest relative difference of the first losses; 0 requires all losses bit-identical


CHECKS = {
    "fp32": Check([_FP32]),
    "auto": Check([], "fp32", 0.03),
    "auto, again": Check([], "auto"),
    "fp32, compiled, CUDA graphs": Check([_FP32, *_GRAPHS], "fp32", 0.001),
    "auto, compiled, CUDA graphs": Check(_GRAPHS, "auto", 0.03),
    "auto, compiled, CUDA graphs, again": Check(_GRAPHS, "auto, compiled, CUDA graphs"),
    "auto, compiled": Check(["compile=true"], "auto", 0.03),
}


class Waits(Checkpoint):
    """Count the steps of each epoch, except the first epoch, in or after which the host waits for the GPU.

    Several waits between the starts of two steps count once, because the GPU is idle after the first. Validation is
    excluded, and so is `torch.cuda.synchronize`, which torch does not report. It is a `Checkpoint` because Lightning
    calls those last.
    """

    def __init__(self) -> None:
        self._step, self._steps_per_epoch = -1, 1
        self._waited: set[int] = set()
        self._show = warnings.showwarning

    @property
    def most(self) -> int:
        """Largest number of such steps in an epoch."""
        epochs = [step // self._steps_per_epoch for step in self._waited if step >= self._steps_per_epoch]
        return max(map(epochs.count, epochs), default=0)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Make torch warn at each wait."""
        self._steps_per_epoch = int(trainer.num_training_batches)
        self._show, warnings.showwarning = warnings.showwarning, self._note
        warnings.filterwarnings("always", _MESSAGE)
        torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Count a step."""
        self._step += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Stop counting during validation."""
        torch.cuda.set_sync_debug_mode("default")

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Resume counting."""
        torch.cuda.set_sync_debug_mode("warn")

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Restore the settings from before training."""
        torch.cuda.set_sync_debug_mode("default")
        warnings.showwarning = self._show

    def _note(self, message: Warning | str, *arguments: Any, **options: Any) -> None:
        if _MESSAGE in str(message):
            self._waited.add(self._step)
        else:
            self._show(message, *arguments, **options)


def check_gpu(overrides: Sequence[str] = (), seconds: float = _SECONDS) -> list[dict[str, str]]:
    """Train the runs of all checks; return a table row per check, whose `result` is `passes`, `fails` or `left out`.

    Args:
        overrides: Overrides for every run.
        seconds: Time limit; no run starts after four fifths of it.
    """
    started = time.monotonic()
    losses: dict[str, np.ndarray] = {}
    rows = []
    for name, each in CHECKS.items():
        row = dict.fromkeys(("images/s", "MB", "waits per epoch", "loss difference"), "-")
        if time.monotonic() - started > 0.8 * seconds:
            rows.append({"check": name, **row, "result": "left out: no time"})
            continue
        print(f"{name}: {time.monotonic() - started:.0f} of {seconds:.0f} s", file=sys.stderr, flush=True)
        try:
            waits, losses[name], result = _trained([*_FAST, *each.words, *overrides])
        except (RunFailedError, UsageError) as error:
            rows.append({"check": name, **row, "result": f"fails: {' '.join(str(error).split())[:200]}"})
            continue
        apart, faults = _faults(each, losses, name, waits)
        row = {
            "images/s": f"{result['images_per_second'] or 0:,.0f}",
            "MB": f"{result['peak_memory_bytes'] / 1e6:,.0f}",
            "waits per epoch": str(waits),
            "loss difference": apart,
        }
        rows.append({"check": name, **row, "result": f"fails: {', '.join(faults)}" if faults else "passes"})
    return rows


def _faults(check: Check, losses: Mapping[str, np.ndarray], name: str, waits: int) -> tuple[str, list[str]]:
    """Return the largest loss difference from the reference, as text, and the run's faults."""
    faults = [] if np.isfinite(losses[name]).all() else ["a loss is not finite"]
    faults += ["more than one wait per epoch"] if waits > 1 else []
    if check.reference is None or check.reference not in losses:
        return "-", faults
    count = _LOSSES if check.tolerance else None
    apart = float(np.abs(losses[name][:count] / losses[check.reference][:count] - 1).max())
    if not apart <= check.tolerance:
        faults.append(f"losses differ from those of {check.reference} by more than {check.tolerance:.1%}")
    return f"{apart:.2%}", faults


def _trained(words: Sequence[str]) -> tuple[int, np.ndarray, Mapping[str, Any]]:
    waits = Waits()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        result = train.run([*words, f"hydra.run.dir={folder}/run"], callbacks=[waits])
        return waits.most, Run(Path(folder) / "run").steps()["loss"], result


def gpu_check(overrides: Sequence[str]) -> int:
    """Print the table of all checks and return the exit code.

    Raises:
        ValueError: There is no GPU.
    """
    if not torch.cuda.is_available():
        raise UsageError("--gpu-check: no GPU is available")
    rows = check_gpu(overrides)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print_table(rows, left=("check", "result"))
    return 0 if all(row["result"] == "passes" for row in rows) else exit_codes.FAILED
