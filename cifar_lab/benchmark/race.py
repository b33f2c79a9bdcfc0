"""Loops side by side: processes of which one runs at a time, in turns."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cifar_lab.benchmark.budget import MOST_STEPS, Budget, Turns, check_steps, fitting
from cifar_lab.benchmark.watch import Over, Turn, Watch, shares
from cifar_lab.machine.exit_codes import UsageError

LOOPS = ("report", "plain", "best", "train")

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "32-true"},
    "bf16": {"precision": "bf16-mixed"},
    "contiguous": {"memory_format": "contiguous"},
    "foreach": {"implementation": "foreach"},
    "compiled": {"compiles": True},
    "fp32-compiled": {"precision": "32-true", "compiles": True},
}
"""Ways for the best loop to compute otherwise."""

# Batches that the report's workers have prepared while the others ran: two each, and one on its way.
_SKIPPED = {"report": 5}
CHECK_STEPS = 8
_MOST_IMAGES = 50_000
_ENDING_SECONDS = 20


@dataclass(frozen=True)
class Contest:
    """What the loops train."""

    command: tuple[str, ...]  # words for `cifar_lab.train`, without data, epochs and logger
    batch_size: int = 128  # images a step
    loops: tuple[str, ...] = LOOPS  # names of loops, or of variants of the best one
    rounds: int = 7  # turns that each loop has
    seconds: float = 1.5  # about how long a turn takes


@dataclass
class Measured:
    """Measurements of a loop."""

    name: str  # the loop's
    precision: str = ""  # Lightning's name of it
    memory_format: str = ""  # layout of its images
    seconds_per_step: list[float] = field(default_factory=list)  # of each round
    phases: dict[str, float] = field(default_factory=dict)  # shares of a step's time
    losses: list[float] = field(default_factory=list)  # of its first steps, on images that are not augmented
    memory_bytes: int = 0  # peak memory, of the GPU or of the process


def race(contest: Contest, budget: Budget) -> list[Measured]:
    """Check that the loops train alike, then time them in turns.

    Every loop has a process of its own, stopped while others take their turns, so that all meet the same machine. In a
    budget's time there are fewer and smaller turns, and fewer steps of the check.

    Raises:
        ValueError: A loop cannot train what the contest says, in one line.
    """
    measured = [Measured(name) for name in contest.loops]
    budget.say("starting its loops")
    with _started(contest, measured, check=True) as processes:
        first = [process.take(Turn(1, skipped=0)) for process in processes]
        more = check_steps([one["seconds"] for one in first], CHECK_STEPS, budget.left()) - 1
        for process, result in zip(processes, first, strict=True):
            budget.say(f"checking that {process.measured.name} trains as the others do")
            process.measured.losses = [*result["losses"], *process.take(Turn(more, skipped=0))["losses"]]
    with _started(contest, measured) as processes:
        _take_turns(contest, processes, budget)
    return measured


def _take_turns(contest: Contest, processes: Sequence["_Process"], budget: Budget) -> None:
    per_step = [process.take(Turn(1, skipped=1))["seconds"] for process in processes]
    skipped = [_SKIPPED.get(process.measured.name, 1) for process in processes]
    turns = fitting(per_step, skipped, contest.rounds, contest.seconds, budget.left())
    longest = 0.0  # seconds of a round
    for number in range(turns.rounds):
        budget.say(f"round {number + 1} of {turns.rounds}")
        started = time.monotonic()
        # Each round begins with another loop, so that none always follows the same one.
        first = number % len(processes)
        for process in [*processes[first:], *processes[:first]]:
            result = process.take(_turn(turns, process))
            process.measured.seconds_per_step.append(result["seconds"] / turns.steps)
        longest = max(longest, time.monotonic() - started)
        if budget.left() < 2 * longest:  # the last one times the parts of a step
            break
    for process in processes:
        result = process.take(_turn(turns, process, in_phases=True))
        process.measured.phases = shares(result["seconds"], result["phases"])
        process.measured.memory_bytes = result["memory"]


def _turn(turns: Turns, process: "_Process", in_phases: bool = False) -> Turn:
    skipped = _SKIPPED.get(process.measured.name, 1) if turns.skips else 0
    return Turn(turns.steps, skipped, in_phases)


class _Process:
    """A loop's process, stopped except for its turns."""

    def __init__(self, contest: Contest, measured: Measured, check: bool, folder: Path) -> None:
        self.measured = measured
        folder.mkdir()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (measured.name, training_words(contest, check), check, theirs, folder)
        self._process = context.Process(target=_work, args=arguments)
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait until it could take a turn, and stop it."""
        how = self._receive()
        self.measured.precision, self.measured.memory_format = how["precision"], how["memory_format"]
        self._signal(signal.SIGSTOP)

    def take(self, turn: Turn) -> dict[str, Any]:
        """Let it take a turn; return its measurements."""
        self._signal(signal.SIGCONT)
        self._connection.send(turn)
        result = self._receive()
        self._signal(signal.SIGSTOP)
        return result

    def end(self) -> None:
        """End it and its workers, by force if it does not end itself."""
        with suppress(OSError):
            self._signal(signal.SIGCONT)
            self._connection.send(None)
            self._process.join(_ENDING_SECONDS)
        with suppress(OSError):
            self._signal(signal.SIGKILL)
        self._process.join()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.killpg(self._process.pid, number)

    def _receive(self) -> dict[str, Any]:
        try:
            received: dict[str, Any] = self._connection.recv()
        except EOFError:
            raise UsageError(f"{self.measured.name}: its process has ended") from None
        if "refused" in received:
            raise UsageError(f"{self.measured.name}: {received['refused']}")
        if "traceback" in received:
            raise RuntimeError(f"{self.measured.name}: {received['traceback']}")
        return received


@contextmanager
def _started(contest: Contest, measured: Sequence[Measured], check: bool = False) -> Iterator[list[_Process]]:
    processes: list[_Process] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, one in enumerate(measured):
                processes.append(_Process(contest, one, check, Path(folder) / str(number)))
            for process in processes:
                process.wait()
            yield processes
        finally:
            for process in processes:
                process.end()


def training_words(contest: Contest, check: bool = False) -> list[str]:
    """Words for `cifar_lab.train`, on synthetic images."""
    # Enough images for all turns to lie in one epoch, up to a limit.
    images = contest.batch_size * (CHECK_STEPS if check else (contest.rounds + 3) * (MOST_STEPS + 5))
    return [
        *contest.command,
        *(f"batch_size={contest.batch_size}", "epochs=1000", "protocol=report"),
        *("data=synthetic", f"data.num_train={min(images, _MOST_IMAGES)}", "data.num_test=100"),
        *(["augment=none"] if check else []),
    ]


def _work(name: str, command: Sequence[str], check: bool, connection: Connection, folder: Path) -> None:
    """Train in a process group of its own, which the data's workers join."""
    from torch import OutOfMemoryError

    os.setsid()
    os.chdir(folder)
    with (folder / "printed.txt").open("w") as printed:
        os.dup2(printed.fileno(), sys.stdout.fileno())
        os.dup2(printed.fileno(), sys.stderr.fileno())
        try:
            _train(name, command, Watch(connection, check))
        except Over:
            pass
        except (UsageError, OutOfMemoryError) as error:
            connection.send({"refused": str(error)})
        except BaseException:
            connection.send({"traceback": traceback.format_exc()})


def _train(name: str, command: Sequence[str], watch: Watch) -> None:
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
