"""Which runs of the published report are due, which are there, and how long they take on this machine."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.config import checked
from cifar_lab.report.published import Row, Scale
from cifar_lab.runs import Archive, Run, find_runs
from cifar_lab.runs.fingerprints import fingerprint

if TYPE_CHECKING:
    from cifar_lab.train.cost import Speed

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Planned:
    """A run that is due, or is there already.

    Attributes:
        row: The first of the published rows that it is.
        tables: The names of all tables that it is in.
        command: What `python -m cifar_lab.train` is given.
        config: What that composes, plain values.
        state: What is there of it.
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
        """Whether nothing is left of it; that a run diverges is what was found of it."""
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
    """What is to be run, each composition once.

    Args:
        rows: Each with the name of its table, or of the hypothesis that it is.
        scale: How much of each.
        seeds: Of each row.
        protocol: `report` or `holdout`.
        overrides: What is set for every run, in place of what the row sets.
        archive: Runs that are finished, beside those under `outputs/`.

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
                known = runs[key]
                runs[key] = Planned(**{**vars(known), "tables": (*known.tables, table)})
            else:
                state, epoch = found.get(key, ("to do", 0))
                runs[key] = Planned(row, (table,), tuple(command), config, state, epoch)
    return list(runs.values())


def measured(configs: Sequence[Mapping[str, Any]]) -> dict[str, "Speed"]:
    """How fast each of the networks trains here, by what tells them apart; a few seconds each."""
    networks = {network_of(config): config for config in configs}
    if networks:
        from cifar_lab.train.cost import measure

        print(f"measuring {len(networks)} networks on this machine", flush=True)
        return {name: measure(config) for name, config in networks.items()}
    return {}


def network_of(config: Mapping[str, Any]) -> str:
    """What tells the networks apart whose speed is measured: the model, the batch size, the optimizer."""
    return json.dumps([config["model"], config["batch_size"], config["optimizer"]["_target_"]], sort_keys=True)


def chosen(only: str) -> list[tuple[str, Row]]:
    """The rows of the tables, the rows, or the hypotheses that are named; without a name every row of every table.

    Raises:
        ValueError: A name is neither's.
    """
    from cifar_lab.report.published import tables

    rows = [(table.name, row) for table in tables() for row in table.rows]
    hypotheses = {one.name: (f"hypothesis-{one.name}", one.row) for _, row in rows for one in row.hypotheses}
    wanted = {name for name in only.replace(" ", ",").split(",") if name}
    known = {name for table, row in rows for name in (table, row.experiment)} | hypotheses.keys()
    for name in sorted(wanted - known):
        nearest = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(sorted(known))}"
        raise ValueError(f"--only {name}: no table, no experiment and no hypothesis of the report{hint}")
    chosen = [(table, row) for table, row in rows if not wanted or wanted & {table, row.experiment}]
    return chosen + [one for name, one in hypotheses.items() if name in wanted]


def _found(archive: Archive) -> dict[str, tuple[str, int]]:
    """What is there, by fingerprint: its state with its place, and how many epochs it has trained."""
    found = {str(run.identity): (f"{run.state}, {archive.results_file}", 0) for run in archive.read()}
    for run in find_runs(OUTPUTS):
        try:
            key, status = fingerprint(run.composition()["config"]), run.status()
        except (OSError, ValueError):
            continue
        state = run.state(status)
        final = state in ("finished", "diverged")
        if not found.get(key, ("",))[0].startswith(("finished", "diverged")) or state == "finished":
            found[key] = (f"{state}, {run.folder}" if final else state, _epochs(run))
    return found


def _epochs(run: Run) -> int:
    try:
        return len(run.metrics())
    except (OSError, ValueError):
        return 0
