"""What a comparison needs to know of runs, and of the jobs of a sweep that have left none."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from cifar_lab.fingerprints import fingerprint, settings
from cifar_lab.runs import Run, job_key


@dataclass(frozen=True)
class Record:
    """A run, or a job that has left none.

    Attributes:
        state: finished, failed, diverged, interrupted, running, dead or missing.
        options: The chosen option of each group, as far as it is known.
        settings: What can change numbers but for the seed, by dotted key, as far as it is known.
        interpolations: What stands for values that follow others, by dotted key.
        overrides: The command line.
        identity: Equal for runs whose numbers must be equal; None for a missing run.
        seed: None if not known.
        status: What `status.json` says.
        result: What `result.json` says; empty if the run has not finished.
        run: Where it lies; None for a missing run.
    """

    state: str
    options: Mapping[str, str | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    interpolations: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    identity: str | None = None
    seed: int | None = None
    status: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    run: Run | None = None

    @property
    def job(self) -> frozenset[str]:
        """What makes a job of a sweep that job."""
        return job_key(self.overrides)

    @property
    def job_without_seed(self) -> frozenset[str]:
        """The command line that the jobs of one composition share."""
        return frozenset(line for line in self.job if not line.startswith("seed="))

    @property
    def description(self) -> str:
        """The state, and what is known of its reason, in one line."""
        if self.state == "running":
            return f"running, epoch {self.status.get('epoch', 0)} of {self.status.get('epochs', '?')}"
        reason = " ".join(str(self.status.get("error", "")).split())
        return f"{self.state}: {reason}" if reason else self.state

    @property
    def composition(self) -> dict[str, Any]:
        """The settings that runs of all seeds share."""
        return {key: value for key, value in self.settings.items() if "${seed}" not in (self.source(key) or "")}

    def source(self, key: str) -> str | None:
        """The interpolation that a setting's value comes from; None where it has one of its own."""
        parts = key.split(".")
        prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        return next((self.interpolations[prefix] for prefix in prefixes if prefix in self.interpolations), None)


def collect(runs: Iterable[Run], jobs: Sequence[Sequence[str]] = ()) -> list[Record]:
    """Read runs, and tell which jobs of a sweep have left none.

    Args:
        runs: In the sweep's folder.
        jobs: The command lines that the sweep planned.

    Returns:
        In the order of the jobs; then what is of none of them, in the order given.

    Raises:
        OSError: A file that belongs to a run is missing.
    """
    records = [read(run) for run in runs]
    present = {record.job for record in records}
    records += [_missing(job, records[:1]) for job in jobs if job_key(job) not in present]
    order = {job_key(job): number for number, job in enumerate(jobs)}
    return sorted(records, key=lambda record: order.get(record.job, len(order)))


def unique(records: Sequence[Record]) -> list[Record]:
    """One of those whose numbers must be equal: a finished one if there is one, and the latest.

    Runs of two experiments that are the same composition both stay: each has its row.
    """
    chosen: dict[object, Record] = {}
    for record in records:
        key = (record.identity, record.options.get("experiment")) if record.run else record.job
        if key not in chosen or _precedence(record) > _precedence(chosen[key]):
            chosen[key] = record
    return list(chosen.values())


def read(run: Run) -> Record:
    """Read what a comparison needs of a run.

    Raises:
        OSError: A file that belongs to a run is missing.
    """
    config, composition, state = run.config(), run.composition(), run.state()
    kept = settings(config)
    return Record(
        state=state,
        seed=int(kept.pop("seed")),
        options=composition["options"],
        settings=dict(_leaves(kept)),
        interpolations=composition["interpolations"],
        overrides=tuple(run.overrides()),
        identity=fingerprint(config),
        status=run.status(),
        result=run.result() if state == "finished" else {},
        run=run,
    )


def _precedence(record: Record) -> tuple[bool, float]:
    return record.state == "finished", record.status.get("heartbeat", 0.0)


def _missing(job: Sequence[str], example: Sequence[Record]) -> Record:
    """A job without a run; where its command line is silent it is taken to be like another run of the sweep."""
    typed = {key: value for key, _, value in (line.lstrip("+").partition("=") for line in job)}
    seed = typed.pop("seed", "")
    groups = example[0].options if example else {}
    known = {} if "experiment" in typed else groups  # what else an experiment sets is not known here
    options = {**known, **{key: value for key, value in typed.items() if key in groups}}
    alike = {
        key: value
        for key, value in (example[0].settings if known else {}).items()
        if known.get(group := key.partition(".")[0]) == options.get(group)
    }
    numbers = {key: _value(text) for key, text in typed.items() if key not in options}
    return Record(
        state="missing",
        options=options,
        settings={**alike, **json.loads(json.dumps(numbers), parse_int=float)},  # as in settings, numbers are floats
        overrides=tuple(job),
        seed=int(seed) if seed.isdigit() else None,
    )


def _value(text: str) -> Any:
    """A value as it is typed; YAML takes `1e-3` for a word."""
    try:
        return float(text)
    except ValueError:
        return yaml.safe_load(text)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, element in value.items():
        if isinstance(element, Mapping) and element:
            yield from _leaves(element, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", element
