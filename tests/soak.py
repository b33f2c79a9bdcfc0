"""Kill a sweep at random times until it ends, and compare it bitwise with an undisturbed one.

Run `make soak`, or `python -m tests.soak --kills 100 --seed 0`.
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

# Eight jobs with nine batches an epoch, saved after every step; the network has dropout.
SWEEP = (
    *("-m", *TINY, "epochs=15", "trainer.precision=32-true", "logger=none", "augment=randaugment"),
    *("trainer.accumulate_grad_batches=2", "callbacks.checkpoint.every_minutes=1e-9"),
    *("optimizer=adam,sgd", "averaging=ema,swa", "scheduler=plateau,one_cycle"),
)
SHORT = (*SWEEP[:-1], "scheduler=plateau")
KILLS_PER_ROUND = 25

# Where the process was, by the first pattern that its stack matches; `faults` makes a process print its stack.
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
    """Results of a soak."""

    places: Counter[str] = field(default_factory=Counter)  # kills by place
    rounds: int = 0  # sweeps that were killed until they ended
    fallbacks: int = 0  # damaged checkpoints that were replaced by the previous one
    differences: set[str] = field(default_factory=set)  # parts that are not bitwise equal

    @property
    def kills(self) -> int:
        """The number of kills."""
        return self.places.total()


def soak(kills: int, seed: int, sweep: tuple[str, ...] = SWEEP) -> Tally:
    """Kill a sweep in the current folder, at moments drawn from the seed, until there are enough kills."""
    tally, moments = Tally(), random.Random(seed)
    whole = Path("undisturbed")
    seconds = _run_undisturbed(whole, sweep)
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    while tally.kills < kills:
        tally.rounds += 1
        folder = Path(f"round{tally.rounds}")
        _round(folder, sweep, kills, 2 * seconds / KILLS_PER_ROUND, moments, tally)
        found = sweep_differences(*(Sweep(next(each.glob("outputs/*/sweep.json")).parent) for each in (whole, folder)))
        tally.differences |= found
        print(f"round {tally.rounds}: {tally.kills} kills so far, differences: {len(found)}", flush=True)
    return tally


def _run_undisturbed(folder: Path, sweep: tuple[str, ...]) -> float:
    folder.mkdir()
    with chdir(folder):
        wait = start(*sweep)
        while not _is_training(wait):
            time.sleep(0.01)
        started = time.monotonic()
        code, output = wait()
    assert code == 0, output
    return time.monotonic() - started


def _round(
    folder: Path, sweep: tuple[str, ...], kills: int, longest: float, moments: random.Random, tally: Tally
) -> None:
    """Start the sweep in a folder and kill it until it ends; once there are enough kills, let it end."""
    folder.mkdir()
    with chdir(folder):
        while tally.kills < kills:
            ended = _kill(start(*sweep), moments.uniform(0, longest))
            tally.fallbacks += _fallbacks(ended.output)
            if ended.code == 0:
                return
            assert ended.code == -signal.SIGKILL, ended
            tally.places[_place(ended.output)] += 1
        code, output = start(*sweep)()
    assert code == 0, output
    tally.fallbacks += _fallbacks(output)


def _kill(wait: Callable[[], Ended], delay: float) -> Ended:
    """Kill a process `delay` seconds after its training starts, unless it ends before."""
    pid: int = wait.pid  # type: ignore[attr-defined]
    while not _is_training(wait) and _is_alive(pid):
        time.sleep(0.01)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and _is_alive(pid):
        time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))
    if _is_alive(pid):
        # The process prints its stack at once, so the kill comes only a millisecond or two later.
        os.kill(pid, signal.SIGPROF)
        time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    return wait()


def _is_training(wait: Callable[[], Ended]) -> bool:
    """Return whether a process is training a run in the current folder."""
    return any(run.status().get("process") == wait.pid for run in find_runs("."))  # type: ignore[attr-defined]


def _is_alive(pid: int) -> bool:
    """Return whether a child process is running; one that has ended without being waited for is a zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def _fallbacks(output: str) -> int:
    """Count the notes about damaged checkpoints."""
    return sum(line.startswith("note: ") and "last.ckpt" in line for line in output.splitlines())


def _place(output: str) -> str:
    stack = output.rpartition("most recent call first")[2]
    if not stack:
        return "unknown"
    return next((name for name, shown in PLACES.items() if re.search(shown, stack, re.DOTALL)), "between jobs")


def main() -> None:
    """Run the command line; exit with 1 if anything differs."""
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
