"""Kill a command or fill its disk at each of its file operations, then check that the same command finishes.

`make soak` runs it; `python -m tests.chaos --every 10` tries a tenth of the operations. It mounts small file systems in
its own namespace. The repeated command must leave no extra files, and every number must equal that of an undisturbed
command.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cifar_lab.runs import Run, Sweep, UnreadableError, find, find_runs
from cifar_lab.status import describe_run, describe_sweeps
from cifar_lab.table import compare_folders
from tests.comparison import differences, sweep_differences
from tests.conftest import TINY
from tests.faults import Ended, Fault, command
from tests.suggestions import suggested_arguments

ENTER = ("unshare", "--user", "--map-root-user", "--mount")
HOW = ("kill", "bytes", "inodes")
SHORT = (*TINY, "data.num_train=20", "trainer.precision=32-true", "logger=none")
SINGLE = (*SHORT, "hydra.run.dir=run")
# Per name: the command's arguments, the arguments of the command before it, if any, and the fault in that one.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Fault | None]] = {
    "single": (SINGLE, (), None),
    "sweep": (("-m", *SHORT, "epochs=1", "seed=0,1"), (), None),
    "begins anew": (SINGLE, SINGLE, Fault("epoch", 1)),
    "goes on": ((*SINGLE, "resume=auto"), SINGLE, Fault("epoch", 1)),
    "trained again": ((*SINGLE, "retrain=true"), SINGLE, None),
}
_FILES, _BALLAST = 400, "ballast"
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}


def arm(at: int, how: str, log: Path) -> None:
    """Inject a fault before the `at`-th change of a file in the current folder, and log the number of changes."""
    here, count, busy = os.getcwd(), itertools.count(1), False

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or not (event in _CHANGES or (event == "open" and _writes(arguments))):
            return
        path = os.fsdecode(arguments[0])
        if os.path.isabs(path) and not path.startswith(here):
            return
        busy = True
        number = next(count)
        log.write_text(str(number))
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else fill(Path(here, _BALLAST), how)
        busy = False

    sys.addaudithook(look)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return isinstance(path, str | bytes | os.PathLike) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def fill(folder: Path, how: str) -> None:
    """Use up a file system's bytes or inodes, all but those of one folder and one file."""
    with suppress(OSError):
        folder.mkdir()
        with (folder / "bytes").open("wb", buffering=0) as file:
            while how == "bytes":
                file.write(bytes(4096))
        for number in itertools.count():
            (folder / str(number)).touch()


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Change to a new file system of 12 MB until the end of the context."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=12m,nr_inodes={_FILES}", "none", str(folder)], check=True)
    try:
        with chdir(folder):
            yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def faults_of(found: Ended, how: str) -> set[str]:
    """Return what is wrong with how a command ended and with what it left, as the reading commands see it."""
    wrong = set()
    if how == "kill":
        if found.code != -signal.SIGKILL:
            wrong.add(f"exit code {found.code}")
    elif found.code != 0:
        *_, last = ["", *found.output.splitlines()]
        if "Traceback" in found.output or not last.startswith("error: ") or found.code != 1:
            wrong.add(f"exit code {found.code}, {last}")
        running = [run for run in find_runs(".") if run.status().get("state") == "running"]
        if running and "run.lock" not in last:  # without its lock, the command has not changed anything
            wrong.add("its state is running")
    for one in find("."):
        describe_run(one) if isinstance(one, Run) else describe_sweeps([one.folder])
    if any(find_runs(".")):
        compare_folders([Path(".")])
    return wrong


def next_arguments(output: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments that the last line suggests, or else the same arguments."""
    *_, last = ["", *output.splitlines()]
    return (
        tuple(suggested_arguments(last, arguments))
        if re.search(r"(;|then) (resume=|its own command)", last)
        else arguments
    )


def try_fault(place: Path, arguments: tuple[str, ...], before: Path, at: int, how: str, whole: Path) -> set[str]:
    """Inject a fault, run the command again, and return what is wrong."""
    log = place.with_suffix(".log")
    with mounted(place):
        shutil.copytree(before, ".", dirs_exist_ok=True)
        found = command(*arguments, before=partial(arm, at, how, log), output=place.with_suffix(".txt"))
        shutil.rmtree(_BALLAST, ignore_errors=True)
        wrong = faults_of(found, how)
        again = command(*next_arguments(found.output, arguments), output=place.with_suffix(".txt"))
        finished = "holds a finished run" in again.output and again.code == 2
        if again.code != 0 and not finished:
            wrong.add(f"again: exit code {again.code}, {again.output.splitlines()[-1:]}")
        else:
            wrong |= file_differences(whole, Path("."))
    place.rmdir()
    return wrong


def file_differences(whole: Path, here: Path) -> set[str]:
    """Return the differences from the files of an undisturbed command."""
    names, own = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (whole, here))
    kept = {name for name in own if name.startswith("replaced")}
    wrong = {f"left over: {name}" for name in own - names - kept} | {f"missing: {name}" for name in names - own
             if not name.startswith("replaced")}  # fmt: skip
    try:
        for one in find(whole):
            place = here / one.folder.relative_to(whole)
            wrong |= sweep_differences(one, Sweep(place)) if isinstance(one, Sweep) else differences(one, Run(place))
    except (OSError, UnreadableError, StopIteration) as error:
        wrong.add(repr(error))
    return wrong


def chaos(folder: Path, name: str, every: int, hows: tuple[str, ...] = HOW) -> int:
    """Try a command with a fault at every `every`-th operation, and return how many tries went wrong."""
    arguments, first, fault = COMMANDS[name]
    before, whole, log = (folder / f"{name} {part}" for part in ("before", "whole", "log"))
    before.mkdir()
    with chdir(before):
        if first:
            command(*first, fault=fault, output=log)
    shutil.copytree(before, whole)
    with chdir(whole):
        assert command(*arguments, before=partial(arm, 0, "kill", log), output=folder / "whole.txt").code == 0
    operations = int(log.read_text())
    print(f"{name}: {operations} file operations", flush=True)
    bad = 0
    for how, at in itertools.product(hows, range(1, operations + 1, every)):
        wrong = try_fault(folder / f"{how}{at}", arguments, before, at, how, whole)
        bad += bool(wrong)
        for what in sorted(wrong):
            print(f"{name}, {how} at {at}: {what}", flush=True)
    return bad


def main() -> None:
    """Run the command line; exit with 1 if anything is wrong."""
    parser = ArgumentParser(description=__doc__, prog="python -m tests.chaos")
    parser.add_argument("--every", type=int, default=1, help="of how many operations one is tried; default: all")
    parser.add_argument("--only", choices=[*COMMANDS], action="append")
    parser.add_argument("--how", choices=HOW, action="append")
    arguments = parser.parse_args()
    if "CHAOS" not in os.environ:  # a namespace where this process may mount
        os.execvpe(ENTER[0], [*ENTER, sys.executable, "-m", "tests.chaos", *sys.argv[1:]], {**os.environ, "CHAOS": "1"})
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        bad = sum(
            chaos(Path(folder), name, arguments.every, tuple(arguments.how or HOW))
            for name in arguments.only or COMMANDS
        )
    print(f"wrong: {bad}")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
