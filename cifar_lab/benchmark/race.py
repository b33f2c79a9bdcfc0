"""Race of loops that train the same network in turns."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar_lab.benchmark.budget import MOST_STEPS, Budget, Turns, check_steps, fitting
from cifar_lab.benchmark.processes import LoopProcess, started
from cifar_lab.benchmark.watch import Turn, Watch, shares

LOOPS = ("report", "plain", "best", "train")

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "32-true"},
    "bf16": {"precision": "bf16-mixed"},
    "contiguous": {"memory_format": "contiguous"},
    "foreach": {"implementation": "foreach"},
    "compiled": {"compiles": True},
    "fp32-compiled": {"precision": "32-true", "compiles": True},
}
"""Variants of the best loop, by name."""

# Batches that the report's two workers prepare during the other loops' turns: two each, and one in transit.
_SKIPPED = {"report": 5}
CHECK_STEPS = 8
_MOST_IMAGES = 25_000  # each process generates its own, in 0.5 s of a core per thousand


@dataclass(frozen=True)
class Contest:
    """The training task of the loops, and their turns."""

    command: tuple[str, ...]  # overrides for `cifar_lab.train`, without data, epochs and logger
    batch_size: int = 128  # images per step
    loops: tuple[str, ...] = LOOPS  # names of loops, or of variants of the best one
    rounds: int = 7  # turns per loop
    seconds: float = 1.5  # approximate length of a turn


@dataclass
class Measured:
    """Measurements of a loop."""

    name: str  # name of the loop
    precision: str = ""  # Lightning's name of the precision
    memory_format: str = ""  # layout of the images
    seconds_per_step: list[float] = field(default_factory=list)  # one per round
    phases: dict[str, float] = field(default_factory=dict)  # fractions of a step's time
    losses: list[float] = field(default_factory=list)  # losses of the first steps, without augmentation
    memory_bytes: int = 0  # peak memory of the GPU or the process


def race(contest: Contest, budget: Budget) -> list[Measured]:
    """Check that the loops train alike, then time them in turns.

    Every loop has its own process, stopped during the turns of the others, so that all loops run under the same
    conditions. A tight budget reduces the turns, their length and the steps of the check.

    Raises:
        ValueError: A loop does not support the contest; the message is one line.
    """
    measured = [Measured(name) for name in contest.loops]
    budget.say("starting the loops")
    with _started(contest, check=True) as processes:
        first = [process.take(Turn(1, skipped=0)) for process in processes]
        more = check_steps([one["seconds"] for one in first], CHECK_STEPS, budget.left()) - 1
        for one, process, result in zip(measured, processes, first, strict=True):
            budget.say(f"checking the losses of {one.name}")
            one.losses = [*result["losses"], *process.take(Turn(more, skipped=0))["losses"]]
    with _started(contest) as processes:
        _take_turns(contest, dict(zip(processes, measured, strict=True)), budget)
    return measured


def _take_turns(contest: Contest, measured: Mapping[LoopProcess, Measured], budget: Budget) -> None:
    processes = list(measured)
    per_step = [process.take(Turn(1, skipped=1))["seconds"] for process in processes]
    skipped = [_SKIPPED.get(process.name, 1) for process in processes]
    turns = fitting(per_step, skipped, contest.rounds, contest.seconds, budget.left())
    longest = 0.0  # seconds of a round
    for number in range(turns.rounds):
        budget.say(f"round {number + 1} of {turns.rounds}")
        began = time.monotonic()
        # Each round begins with a different loop, so that no loop always follows the same one.
        first = number % len(processes)
        for process in [*processes[first:], *processes[:first]]:
            result = process.take(_turn(turns, process))
            measured[process].seconds_per_step.append(result["seconds"] / turns.steps)
        longest = max(longest, time.monotonic() - began)
        if budget.left() < 2 * longest:  # leaves time for the round that times the parts of a step
            break
    for process, one in measured.items():
        one.precision, one.memory_format = process.precision, process.memory_format
        result = process.take(_turn(turns, process, in_phases=True))
        one.phases = shares(result["seconds"], result["phases"])
        one.memory_bytes = result["memory"]


def _turn(turns: Turns, process: LoopProcess, in_phases: bool = False) -> Turn:
    skipped = _SKIPPED.get(process.name, 1) if turns.skips else 0
    return Turn(turns.steps, skipped, in_phases)


def _started(contest: Contest, check: bool = False) -> AbstractContextManager[list[LoopProcess]]:
    return started([(name, training_words(contest, check)) for name in contest.loops], _train, seeded=check)


def training_words(contest: Contest, check: bool = False) -> list[str]:
    """Return overrides for `cifar_lab.train` on synthetic images."""
    # Enough images for all turns to fit into one epoch, up to a limit.
    images = contest.batch_size * (CHECK_STEPS if check else (contest.rounds + 3) * (MOST_STEPS + 5))
    return [
        *contest.command,
        *(f"batch_size={contest.batch_size}", "epochs=1000", "protocol=report"),
        *("data=synthetic", f"data.num_train={min(images, _MOST_IMAGES)}", "data.num_test=100"),
        *(["augment=none"] if check else []),
    ]


def _train(name: str, command: Sequence[str], watch: Watch, folder: Path) -> None:
    os.chdir(folder)
    if name == "train":
        from cifar_lab.benchmark.ours import ours

        ours(command, watch)
        return
    from omegaconf import OmegaConf

    from cifar_lab.benchmark import loops
    from cifar_lab.config.composition import composed

    config = OmegaConf.create(composed(command))
    options: Mapping[str, Any] = {"variant": loops.Variant(**VARIANTS[name])} if name in VARIANTS else {}
    for loss in getattr(loops, name if name in LOOPS else "best")(config, watch, **options):
        watch.end(loss)
