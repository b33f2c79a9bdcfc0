"""List runs and their progress: `python -m cifar_lab.status outputs`."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, find_runs, find_sweeps, read_state
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.printing import print_table
from cifar_lab.terminal.progress import with_progress

_COLOURS = {"finished": "green", "running": "cyan", "interrupted": "yellow", "missing": "yellow", "pruned": "blue"}
_WATCH_SECONDS = 5.0
_CLEAR = "\x1b[H\x1b[2J"  # clears the terminal
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (0, "s"))


def status(
    paths: Annotated[list[Path], typer.Argument(help="Folders to search for runs and sweeps.")] = [Path("outputs")],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh until no run is running; without a terminal, print changes only.")
    ] = False,
) -> None:
    """List runs and sweeps: state, epoch, accuracy, time since the last heartbeat, folder."""
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder")
    if watch:
        if as_json:
            raise UsageError("--watch --json: leave one of them out; a program can call --json repeatedly")
        _watch(paths)
        return
    runs, sweeps = _look(paths)
    if as_json:
        print(json.dumps({"runs": runs, "sweeps": sweeps}, indent=2))
    else:
        _show(runs, sweeps)


def _look(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    runs = [run for path in paths for run in find_runs(path)]
    return [describe_run(run) for run in with_progress(runs, "reading runs")], describe_sweeps(paths)


def _watch(paths: Sequence[Path]) -> None:
    """Show runs and sweeps every 5 seconds until no run is running; without a terminal, print only changes."""
    is_terminal, before = sys.stdout.isatty(), dict[str, str]()
    while True:
        runs, sweeps = _look(paths)
        if is_terminal:
            print(_CLEAR, end="")
            _show(runs, sweeps)
        else:
            lines = {run["folder"]: "  ".join(filter(None, _cells(run, of_age=False).values())) for run in runs}
            lines |= {f"sweep {sweep['folder']}": _of_sweep(sweep) for sweep in sweeps}
            for key, line in lines.items():
                if line != before.get(key):
                    print(line, flush=True)
            before = lines
        if not any(run["state"] == "running" for run in runs):
            return
        time.sleep(_WATCH_SECONDS)


def describe_run(run: Run) -> dict[str, Any]:
    """Describe a run in plain values.

    Returns:
        `folder`, `state`, `epoch`, `epochs`, `accuracy` (from 0 to 1, on the test set if the run has finished, else
        from the last validation; None before the first), `measured_on` (test or val), `age` (seconds since the last
        write of the run's status), `error` (or None), `host` and `process`.
    """
    record = read_state(run)
    status = record.status
    accuracy, measured_on = record.result.get("test/acc"), "test" if record.is_finished else None
    if not record.has_ended:  # a diverged run has no finite weights to report
        with suppress(OSError, ValueError, KeyError, IndexError):
            accuracy, measured_on = list(run.validated().values())[-1], "val"
    return {
        "folder": os.path.relpath(run.folder),
        "state": record.state,
        **{name: status.get(name) for name in ("epoch", "epochs")},
        "accuracy": accuracy,
        "measured_on": measured_on,
        "age": round(time.time() - status["heartbeat"], 1) if "heartbeat" in status else None,
        **{name: status.get(name) for name in ("error", "host", "process")},
    }


def describe_sweeps(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return each sweep's `folder`, number of `jobs` and number of jobs by state (`states`)."""
    sweeps = []
    for sweep in (sweep for path in paths for sweep in find_sweeps(path)):
        counts = Counter("missing" if run is None else run.state() for _, run in sweep.jobs())
        sweeps.append({"folder": os.path.relpath(sweep.folder), "jobs": counts.total(), "states": dict(counts)})
    return sweeps


def _show(runs: list[dict[str, Any]], sweeps: list[dict[str, Any]]) -> None:
    rows = list(map(_cells, runs))
    if rows:
        print_table(rows, ("state", "folder"), lambda state: _COLOURS.get(state, "red"))
    for sweep in sweeps:
        print(_of_sweep(sweep))
    if not rows and not sweeps:
        print("no runs")


def _cells(run: dict[str, Any], *, of_age: bool = True) -> dict[str, str]:
    return {
        "state": run["state"],
        "epoch": "" if run["epoch"] is None else f"{run['epoch']}/{run['epochs']}",
        "accuracy": "" if run["accuracy"] is None else f"{run['measured_on']} {run['accuracy']:.2%}",
        "age": _age(run["age"]) if of_age else "",
        "folder": Path(run["folder"]).as_posix(),
    }


def _of_sweep(sweep: dict[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sweep["states"].items())
    return f"sweep {sweep['folder']}: {sweep['jobs']} jobs, {states}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    size, unit = next(span for span in _SPANS if seconds >= span[0] or span[0] == 0)
    return f"{seconds / max(size, 1):.0f} {unit}"


def main() -> None:
    """Entry point of the command line."""
    run_command(status, loses=())


if __name__ == "__main__":
    main()
