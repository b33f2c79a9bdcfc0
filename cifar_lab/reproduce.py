"""Run every row of the published report: `python -m cifar_lab.reproduce --scale quick --only loss`."""

import gc
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifar_lab import train
from cifar_lab.engines.handover import RunFailedError, clock
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.report.planned import OUTPUTS, Planned, chosen, measured, network_of, plan
from cifar_lab.report.published import Scale
from cifar_lab.runs import Archive
from cifar_lab.terminal.command import run_command

if TYPE_CHECKING:
    from cifar_lab.train.cost import Speed


def reproduce(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Set for every run beside its own, such as data.train_size=10000.")
    ] = None,
    scale: Annotated[Scale, typer.Option(help="How much of each run: all, a tenth of its epochs, 1,000 images.")] = (
        Scale.FULL
    ),
    only: Annotated[
        str, typer.Option(help="Tables, experiments, hypotheses, joined by commas; all tables without it.")
    ] = "",
    seed: Annotated[str, typer.Option(help="Seeds, joined by commas.")] = "0",
    protocol: Annotated[
        str, typer.Option(help="report, whose numbers are the published ones', or holdout.")
    ] = "report",
    results: Annotated[Path, typer.Option(help="Finished runs kept small; they are not run again.")] = Path(
        "docs/results"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it takes, and end.")] = False,
) -> int:
    """Run every row of the published report, shortest first; what is finished stays, what was interrupted goes on."""
    if not seed.replace(",", "").isdecimal():
        raise UsageError(f"--seed {seed}: it takes whole numbers joined by commas")
    seeds = [int(number) for number in seed.split(",") if number]
    planned = plan(chosen(only), scale, seeds, protocol, overrides or [], Archive(results))
    due = [one for one in planned if not one.is_finished]
    speeds = measured([one.config for one in due])
    due.sort(key=lambda one: one.seconds(speeds[network_of(one.config)]))
    _show([one for one in planned if one.is_finished], due, speeds)
    if dry_run:
        return 0
    left = _run(due)
    print(
        f"{len(planned) - len(left)} of {len(planned)} runs are finished; "
        f"python -m cifar_lab.report {OUTPUTS} sets them beside what was published"
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
    print(
        f"{len(due)} of {len(lines)} runs to do, about {clock(math.ceil(total))} on this machine, measured now",
        flush=True,
    )


def _run(due: Sequence[Planned]) -> list[Planned]:
    """Train the runs that are due, and retry those of another process at the end; those that have not finished."""
    later: list[Planned] = []
    failed: list[Planned] = []
    for number, one in enumerate(due, 1):
        command = shlex.join(["python", "-m", "cifar_lab.train", *one.command])
        print(f"\nrun {number} of {len(due)}: {command}", flush=True)
        error = _trained(one)
        if error is not None:
            (later if error.exit_code == exit_codes.USAGE else failed).append(one)
    return [*failed, *(one for one in later if _trained(one) is not None)]


def _trained(one: Planned) -> RunFailedError | None:
    """Train a run; its error, which is printed, if any. A signal raises `typer.Exit`."""
    gc.collect()  # a network and its trainer refer to each other; this run may need the memory of the last one
    try:
        train.run(one.command)
    except (RunFailedError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error if isinstance(error, RunFailedError) else RunFailedError(str(error))
    except Interrupted as error:
        print(f"error: interrupted by {error}; the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    return None


def main() -> None:
    """The command line."""
    run_command(reproduce)


if __name__ == "__main__":
    main()
