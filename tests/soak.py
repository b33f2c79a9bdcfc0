"""Kill a sweep at random again and again until it ends, and compare it with an undisturbed one, bit by bit.

`make soak`, or `python -m tests.soak --kills 100 --seed 0`.
"""

import os
import random
import re
import signal
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

from cifar_lab.runs import Sweep, find_runs
from tests.comparison import sweep_differences
from tests.conftest import TINY
from tests.faults import Ended, start

# Eight jobs of nine batches an epoch, saved after every step; dropout is in the network.
SWEEP = (
    *("-m", *TINY, "epochs=15", "trainer.precision=32-true", "logger=none", "augment=randaugment"),
    *("trainer.accumulate_grad_batches=2", "callbacks.checkpoint.every_minutes=1e-9"),
    *("optimizer=adam,sgd", "averaging=ema,swa", "scheduler=plateau,one_cycle"),
)
SHORT = (*SWEEP[:-1], "scheduler=plateau")
KILLS_PER_ROUND = 25

# Where a process was, by what its stack holds, the first that fits; `faults` lets a process write its stack.
PLACES = {
    "a checkpoint's save": r"in (write_checkpoint|dump_checkpoint)\b",
    "another file's save": r"in (replacing|append_metrics)\b",
    "validation": r"evaluation_loop\.py.*fit_loop\.py",
    "test": r"evaluation_loop\.py",
    "a step": r"training_epoch_loop\.py",
    "a figure": r"in draw\b",
    "the rest of a run": r"in train_run\b",
}


@dataclass
class Tally:
    """What a soak has seen."""

    places: Counter[str] = field(default_factory=Counter)  # kills, by where they landed
    rounds: int = 0  # sweeps that were killed until they ended
    fallbacks: int = 0  # damaged checkpoints, instead of which the one before was taken
    differences: set[str] = field(default_factory=set)  # what was not the same to the bit

    @property
    def kills(self) -> int:
        """How many there were."""
        return self.places.total()


def soak(kills: int, seed: int, sweep: tuple[str, ...] = SWEEP) -> Tally:
    """Kill a sweep in the current folder until there were enough kills, at moments that follow from the seed."""
    tally, moments = Tally(), random.Random(seed)
    whole = Path("undisturbed")
    seconds = _undisturbed(whole, sweep)
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    while tally.kills < kills:
        tally.rounds += 1
        folder = Path(f"round{tally.rounds}")
        _round(folder, sweep, kills, 2 * seconds / KILLS_PER_ROUND, moments, tally)
        found = sweep_differences(*(Sweep(next(each.glob("outputs/*/sweep.json")).parent) for each in (whole, folder)))
        tally.differences |= found
        print(f"round {tally.rounds}: {tally.kills} kills so far, differences: {len(found)}", flush=True)
    return tally


def _undisturbed(folder: Path, sweep: tuple[str, ...]) -> float:
    folder.mkdir()
    with chdir(folder):
        wait = start(*sweep)
        while not _trains(wait):
            time.sleep(0.01)
        started = time.monotonic()
        code, output = wait()
    assert code == 0, output
    return time.monotonic() - started


def _round(
    folder: Path, sweep: tuple[str, ...], kills: int, longest: float, moments: random.Random, tally: Tally
) -> None:
    """Start the sweep in a folder and kill it, until it ends or there were enough kills, after which it ends."""
    folder.mkdir()
    with chdir(folder):
        while tally.kills < kills:
            ended = _killed(start(*sweep), moments.uniform(0, longest))
            tally.fallbacks += _fallbacks(ended.output)
            if ended.code == 0:
                return
            assert ended.code == -signal.SIGKILL, ended
            tally.places[_place(ended.output)] += 1
        code, output = start(*sweep)()
    assert code == 0, output
    tally.fallbacks += _fallbacks(output)


def _killed(wait: Callable[[], Ended], delay: float) -> Ended:
    """Kill a process that long after it began to train; it may have ended before."""
    pid: int = wait.pid  # type: ignore[attr-defined]
    while not _trains(wait) and _lives(pid):
        time.sleep(0.01)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and _lives(pid):
        time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))
    if _lives(pid):
        # Its stack is written at once, whatever it does, so that the kill comes a millisecond or two later.
        os.kill(pid, signal.SIGPROF)
        time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    return wait()


def _trains(wait: Callable[[], Ended]) -> bool:
    """Whether a process has begun to train a run in the current folder."""
    return any(run.status().get("process") == wait.pid for run in find_runs("."))  # type: ignore[attr-defined]


def _lives(pid: int) -> bool:
    """Whether a process of ours has not ended; one that nobody has waited for is a zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def _fallbacks(output: str) -> int:
    """How often a damaged checkpoint was noted."""
    return sum(line.startswith("note: ") and "last.ckpt" in line for line in output.splitlines())


def _place(output: str) -> str:
    stack = output.rpartition("most recent call first")[2]
    if not stack:
        return "unknown"
    return next((name for name, shown in PLACES.items() if re.search(shown, stack, re.DOTALL)), "between jobs")


def main() -> None:
    """The command line; exits with 1 if anything differs."""
    parser = ArgumentParser(description=__doc__, prog="python -m tests.soak")
    parser.add_argument("--kills", type=int, default=100, help="default: 100")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills; default: 0")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, chdir(folder):
        tally = soak(arguments.kills, arguments.seed)
    print(f"{tally.kills} kills in {tally.rounds} rounds, {time.monotonic() - started:.0f} s")
    print("killed in: " + ", ".join(f"{name} {count}" for name, count in tally.places.most_common()))
    print(f"damaged checkpoints, the one before taken: {tally.fallbacks}")
    print(f"differences: {len(tally.differences)}", *sorted(tally.differences), sep="\n  ")
    raise SystemExit(1 if tally.differences else 0)


if __name__ == "__main__":
    main()
