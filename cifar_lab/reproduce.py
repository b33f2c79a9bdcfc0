"""Run every row of the published report: `python -m cifar_lab.reproduce --scale quick --only loss`."""

import gc
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab import train
from cifar_lab.config import checked
from cifar_lab.config.checks import did_you_mean
from cifar_lab.config.composition import composed
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.report.published import Row, Scale, tables
from cifar_lab.runs import Archive, find_runs
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.runs.sizes import train_size
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.process import UNWRITABLE
from cifar_lab.terminal.progress import clock, with_progress

if TYPE_CHECKING:
    from cifar_lab.train.cost import Speed

OUTPUTS = Path("outputs")
_FINAL = ("finished", "diverged")


@dataclass(frozen=True)
class Planned:
    """A run of the report, to do or existing."""

    row: Row  # the first published row that it reproduces; `tables` names the tables of all of them
    tables: tuple[str, ...]
    command: tuple[str, ...]  # the arguments of `python -m cifar_lab.train`
    config: Mapping[str, Any]  # the composed configuration, in plain values
    state: str
    epoch: int = 0  # trained so far

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to run; a diverged run counts as a result."""
        return self.state.startswith(_FINAL)

    @property
    def train_size(self) -> int:
        """Training images per epoch."""
        return train_size(self.config["data"])

    def seconds(self, speed: "Speed") -> float:
        """Estimate the remaining time."""
        epochs, data = self.config["epochs"] - self.epoch, self.config["data"]
        every = self.config["trainer"]["check_val_every_n_epoch"] or 1
        return speed.seconds(epochs, self.train_size, data.get("num_test", 10_000), epochs // every)


def plan(
    rows: Sequence[tuple[str, Row]],
    scale: Scale,
    seeds: Sequence[int],
    protocol: str,
    overrides: Sequence[str],
    archive: Archive,
) -> list[Planned]:
    """Return the runs of some rows, each composition once.

    Args:
        rows: Each with the name of its table, or of its hypothesis.
        scale: How much of each run to train.
        seeds: One run of each row per seed.
        protocol: An option of `protocol`.
        overrides: Take precedence over a row's own settings.
        archive: Runs that count as existing, like those under `OUTPUTS`.

    Raises:
        ValueError: A command line cannot be run.
    """
    states = _states(archive)
    runs: dict[str, Planned] = {}
    for seed in seeds:
        for table, row in rows:
            prefix = "report" if scale is Scale.FULL else f"report-{scale}"
            own = [*row.command(scale, seed, protocol), f"name={prefix}-{table}"]
            keys = {line.partition("=")[0] for line in overrides}
            command = [*(line for line in own if line.partition("=")[0] not in keys), "resume=auto", *overrides]
            if not runs:
                checked(command)
            config = composed(command)
            key = fingerprint(config)
            if key in runs:
                runs[key] = replace(runs[key], tables=(*runs[key].tables, table))
            else:
                state, epoch = states.get(key, ("to do", 0))
                runs[key] = Planned(row, (table,), tuple(command), config, state, epoch)
    return list(runs.values())


def measured(configs: Sequence[Mapping[str, Any]]) -> dict[str, "Speed"]:
    """Measure the training speed of each network on this machine, by `network_of`; takes a few seconds each."""
    networks = {network_of(config): config for config in configs}
    if not networks:
        return {}
    from cifar_lab.train.cost import measure

    print(f"measuring {len(networks)} networks on this machine", flush=True)
    return {name: measure(networks[name]) for name in with_progress(list(networks), "measuring networks")}


def network_of(config: Mapping[str, Any]) -> str:
    """Return a key that is equal for runs of equal speed: model, batch size and optimizer."""
    return json.dumps([config["model"], config["batch_size"], config["optimizer"]["_target_"]], sort_keys=True)


def chosen(only: str) -> list[tuple[str, Row]]:
    """Return the rows of the named tables, experiments and hypotheses; of all tables if no name is given."""
    rows = [(table.name, row) for table in tables() for row in table.rows]
    hypotheses = {one.name: (f"hypothesis-{one.name}", one.row) for _, row in rows for one in row.hypotheses}
    wanted = {name for name in only.replace(" ", ",").split(",") if name}
    known = {name for table, row in rows for name in (table, row.experiment)} | hypotheses.keys()
    for name in sorted(wanted - known):
        hint = did_you_mean(name, sorted(known)) or f"; there are {', '.join(sorted(known))}"
        raise UsageError(f"--only {name}: not a table, experiment or hypothesis of the report{hint}")
    chosen = [(table, row) for table, row in rows if not wanted or wanted & {table, row.experiment}]
    return chosen + [one for name, one in hypotheses.items() if name in wanted]


def _states(archive: Archive) -> dict[str, tuple[str, int]]:
    """Return the state, with its location, and the number of epochs of every existing run, by fingerprint."""
    states = {str(run.identity): (f"{run.state}, {archive.results_file}", 0) for run in archive.read()}
    for run in find_runs(OUTPUTS):
        try:
            key = fingerprint(run.composition()["config"])
        except (OSError, ValueError):
            continue
        state, epochs = run.state(), 0
        with suppress(OSError, ValueError):
            epochs = len(run.metrics())
        if state == "finished" or not states.get(key, ("",))[0].startswith(_FINAL):
            states[key] = (f"{state}, {run.folder}" if state in _FINAL else state, epochs)
    return states


def reproduce(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides for every run, such as data.train_size=10000.")
    ] = None,
    scale: Annotated[
        Scale, typer.Option(help="Length of each run: all of it, a tenth of its epochs, one epoch of 1,000 images.")
    ] = (Scale.FULL),
    only: Annotated[
        str, typer.Option(help="Tables, experiments or hypotheses, joined by commas; default: all tables.")
    ] = "",
    seed: Annotated[str, typer.Option(help="Seeds, joined by commas.")] = "0",
    protocol: Annotated[str, typer.Option(help="report, as in the published numbers, or holdout.")] = "report",
    results: Annotated[Path, typer.Option(help="The archive of finished runs, which are skipped.")] = Path(
        "docs/results"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the planned runs and their duration, and exit.")
    ] = False,
) -> int:
    """Run every row of the published report, shortest first; skip finished runs and resume interrupted ones."""
    if not seed.replace(",", "").isdecimal():
        raise UsageError(f"--seed {seed}: it takes whole numbers separated by commas")
    seeds = [int(number) for number in seed.split(",") if number]
    planned = plan(chosen(only), scale, seeds, protocol, overrides or [], Archive(results))
    due = [one for one in planned if not one.is_finished]
    speeds = measured([one.config for one in due])
    due.sort(key=lambda one: one.seconds(speeds[network_of(one.config)]))
    _show([one for one in planned if one.is_finished], due, speeds)
    if dry_run:
        return 0
    left = _run(due, [one.seconds(speeds[network_of(one.config)]) for one in due])
    print(
        f"{len(planned) - len(left)} of {len(planned)} runs are finished; "
        f"python -m cifar_lab.report {OUTPUTS} compares them with the published rows"
    )
    if left:
        print(f"error: not finished: {', '.join(one.row.name for one in left)}", file=sys.stderr)
    return exit_codes.FAILED if left else 0


def _show(finished: Sequence[Planned], due: Sequence[Planned], speeds: Mapping[str, "Speed"]) -> None:
    from cifar_lab.terminal.printing import print_table

    lines, total = [], 0.0
    for one in (*finished, *due):
        line = {
            "row": one.row.name,
            "tables": ", ".join(one.tables),
            "seed": str(one.config["seed"]),
            "epochs": f"{one.config['epochs']:,}",
            "images": f"{one.train_size:,}",
            "state": one.state,
            "images/s": "-",
            "about": "-",
        }
        if not one.is_finished:
            speed = speeds[network_of(one.config)]
            seconds = one.seconds(speed)
            total += seconds
            line |= {"images/s": f"{speed.training:,.0f}", "about": clock(math.ceil(seconds))}
            line["state"] += f", {one.epoch} epochs" if one.epoch else ""
        lines.append(line)
    print_table(lines, left=("row", "tables", "state"))
    takes = f"about {clock(math.ceil(total))} on this machine, measured now"
    print(f"{len(due)} of {len(lines)} runs to do, {takes}", flush=True)


def _run(due: Sequence[Planned], seconds: Sequence[float]) -> list[Planned]:
    """Train the due runs; return the unfinished ones.

    A run that a different process is training is retried at the end. `seconds` holds the expected duration of each.
    """
    later, failed = list[Planned](), list[Planned]()
    for number, one in enumerate(due, 1):
        command = shlex.join(["python", "-m", "cifar_lab.train", *one.command])
        print(f"\nrun {number} of {len(due)}, about {clock(sum(seconds[number - 1 :]))} left: {command}", flush=True)
        error = _trained(one)
        if error is not None:
            (later if error.exit_code == exit_codes.USAGE else failed).append(one)
    return [*failed, *(one for one in later if _trained(one) is not None)]


def _trained(one: Planned) -> RunFailedError | None:
    """Train a run and return its error, after printing it, or None. A signal raises `typer.Exit`."""
    gc.collect()  # a network and its trainer form a cycle, and the next run may need the memory
    try:
        train.run(one.command)
    except (RunFailedError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error if isinstance(error, RunFailedError) else RunFailedError(str(error))
    except Interrupted as error:
        print(f"error: interrupted by {error}; the same command resumes it", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    return None


def main() -> None:
    """Entry point of the command line."""
    run_command(reproduce, loses=UNWRITABLE)


if __name__ == "__main__":
    main()
