"""Which runs of the published report are due, which are there, and how long they take on this machine."""

import difflib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.config import checked
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.report.published import Row, Scale
from cifar_lab.runs import Archive, find_runs
from cifar_lab.runs.fingerprints import fingerprint

if TYPE_CHECKING:
    from cifar_lab.train.cost import Speed

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Planned:
    """A run that is due, or is there already.

    Attributes:
        row: The first of its published rows.
        tables: The names of all tables that it is in.
        command: The arguments of `python -m cifar_lab.train`.
        config: The configuration that they compose, plain values.
        state: Its state so far.
        epoch: Epochs that it has trained.
    """

    row: Row
    tables: tuple[str, ...]
    command: tuple[str, ...]
    config: Mapping[str, Any]
    state: str
    epoch: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to run; a run that diverged is a result."""
        return self.state.startswith(("finished", "diverged"))

    @property
    def train_size(self) -> int:
        """Training images of an epoch."""
        data = self.config["data"]
        whole = data.get("num_train", 50_000) - round(data["val_fraction"] * data.get("num_train", 50_000))
        return min(whole, data["train_size"] or whole)

    def seconds(self, speed: "Speed") -> float:
        """About how long it still takes."""
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
    """The runs of some rows, each composition once.

    Args:
        rows: Each with the name of its table, or of its hypothesis.
        scale: How much of each.
        seeds: Of each row.
        protocol: `report` or `holdout`.
        overrides: Settings of every run, in place of the row's.
        archive: Finished runs, besides those under `outputs/`.

    Raises:
        ValueError: A command line cannot be run.
    """
    from cifar_lab.config.composition import composed

    found = _found(archive)
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
                state, epoch = found.get(key, ("to do", 0))
                runs[key] = Planned(row, (table,), tuple(command), config, state, epoch)
    return list(runs.values())


def measured(configs: Sequence[Mapping[str, Any]]) -> dict[str, "Speed"]:
    """How fast each of the networks trains here, by `network_of`; a few seconds each."""
    networks = {network_of(config): config for config in configs}
    if not networks:
        return {}

    from cifar_lab.train.cost import measure

    print(f"measuring {len(networks)} networks on this machine", flush=True)
    return {name: measure(config) for name, config in networks.items()}


def network_of(config: Mapping[str, Any]) -> str:
    """A key of equal speed: the model, the batch size, the optimizer."""
    return json.dumps([config["model"], config["batch_size"], config["optimizer"]["_target_"]], sort_keys=True)


def chosen(only: str) -> list[tuple[str, Row]]:
    """The rows of the named tables, experiments and hypotheses; without a name every row of every table.

    Raises:
        ValueError: A name is unknown.
    """
    from cifar_lab.report.published import tables

    rows = [(table.name, row) for table in tables() for row in table.rows]
    hypotheses = {one.name: (f"hypothesis-{one.name}", one.row) for _, row in rows for one in row.hypotheses}
    wanted = {name for name in only.replace(" ", ",").split(",") if name}
    known = {name for table, row in rows for name in (table, row.experiment)} | hypotheses.keys()
    for name in sorted(wanted - known):
        nearest = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(sorted(known))}"
        raise UsageError(f"--only {name}: no table, no experiment and no hypothesis of the report{hint}")
    chosen = [(table, row) for table, row in rows if not wanted or wanted & {table, row.experiment}]
    return chosen + [one for name, one in hypotheses.items() if name in wanted]


def _found(archive: Archive) -> dict[str, tuple[str, int]]:
    """The state, with its place, and the number of epochs of every run that exists, by fingerprint."""
    found = {str(run.identity): (f"{run.state}, {archive.results_file}", 0) for run in archive.read()}
    for run in find_runs(OUTPUTS):
        try:
            key = fingerprint(run.composition()["config"])
        except (OSError, ValueError):
            continue
        state, epochs = run.state(), 0
        with suppress(OSError, ValueError):
            epochs = len(run.metrics())
        final = state in ("finished", "diverged")
        if not found.get(key, ("",))[0].startswith(("finished", "diverged")) or state == "finished":
            found[key] = (f"{state}, {run.folder}" if final else state, epochs)
    return found
