"""What a comparison needs to know of runs, and of the jobs of a sweep that have left none."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from cifar_lab.runs import Run, UnreadableError, from_yaml, job_key
from cifar_lab.runs.fingerprints import digest, leaves, settings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Record:
    """A run, or a job that has left none.

    Attributes:
        state: finished, failed, diverged, interrupted, pruned, running, dead, unreadable or missing.
        options: The chosen option of each group, as far as it is known.
        settings: What can change numbers but for the seed, by dotted key, as far as it is known.
        interpolations: What stands for values that follow others, by dotted key.
        overrides: The command line.
        identity: Equal for runs whose numbers must be equal; None for a missing run, an unreadable one's folder.
        seed: None if not known.
        status: What `status.json` says.
        result: What `result.json` says; empty if the run has not finished.
        run: Where it lies; None for a missing run, and for one that is kept in an archive.
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
    def is_missing(self) -> bool:
        """Whether it is a job that has left no run."""
        return self.state == "missing"

    @cached_property
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
        if self.state in ("running", "pruned"):
            return f"{self.state}, epoch {self.status.get('epoch', 0)} of {self.status.get('epochs', '?')}"
        reason = " ".join(str(self.status.get("error", "")).split())
        return f"{self.state}: {reason}" if reason else self.state

    def metrics(self) -> "pd.DataFrame | None":
        """A run's epochs; None of a run that has diverged, whose last are no numbers, or that has trained none."""
        if self.run is None or self.state in ("diverged", "unreadable"):
            return None
        try:
            metrics = self.run.metrics()
        except (FileNotFoundError, UnreadableError):
            return None
        return metrics if len(metrics) else None

    @cached_property
    def composition(self) -> str:
        """What runs of all seeds share, as one word: the settings, the experiment, and the study."""
        own = {key: value for key, value in self.settings.items() if "${seed}" not in self.sources.get(key, "")}
        return json.dumps([self.options.get("experiment"), self.options.get("study"), own], sort_keys=True)

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Where settings that follow others get their values, interpolations by the setting's dotted key."""
        return _sources(tuple(self.interpolations.items()), tuple(self.settings))


@lru_cache
def _sources(interpolations: tuple[tuple[str, str], ...], keys: tuple[str, ...]) -> dict[str, str]:
    """Cached, as thousands of runs have the same."""
    found = {}
    for key in keys:
        inner = [source for prefix, source in interpolations if f"{key}.".startswith(f"{prefix}.")]
        if inner:
            found[key] = inner[0]
    return found


def collect(sweeps: Iterable[tuple[Iterable[Run], Sequence[Sequence[str]]]]) -> list[Record]:
    """Read runs, and tell which jobs of a sweep have left none.

    Args:
        sweeps: Runs, each time with the command lines of the jobs of which they are the runs, if they are of a sweep.

    Returns:
        Sweep by sweep in the order of the jobs; then what is of none of them, in the order given. Of those whose
        numbers must be equal one: a finished one if there is one, and the latest.
    """
    read_sweeps = [([read(run) for run in runs], jobs) for runs, jobs in sweeps]
    present = {record.job for records, _ in read_sweeps for record in records}
    found = []
    for records, jobs in read_sweeps:
        missing = [_missing(job, records) for job in jobs if job_key(job) not in present]
        order = {job_key(job): number for number, job in enumerate(jobs)}
        found += sorted([*records, *missing], key=lambda record: order.get(record.job, len(order)))
    return _unique(found)


def read(run: Run) -> Record:
    """Read what a comparison needs of a run; one that is damaged is `unreadable`."""
    try:
        composition, status = run.composition(), run.status()
        state, kept = run.state(status), settings(composition["config"])
        identity, seed = digest(kept), int(kept.pop("seed"))
        return Record(
            state=state,
            seed=seed,
            options=composition["options"],
            settings=dict(leaves(kept)),
            interpolations=composition["interpolations"],
            overrides=tuple(composition["overrides"]),
            identity=identity,
            status=status,
            result=_shown(run) if state == "finished" else {},
            run=run,
        )
    except (OSError, ValueError, KeyError) as error:
        told = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else str(error)
        return Record(state="unreadable", status={"error": told}, identity=str(run.folder), run=run)


def _shown(run: Run) -> dict[str, Any]:
    """A result that has what tables show of every finished run."""
    result = run.result()
    parts = (result.get("options", {}).get("data"), result.get("hardware", {}).get("device_name"))
    if None in (*parts, result.get("precision"), result.get("test_size")):
        raise ValueError(f"{run.result_file} lacks the data, the hardware, the precision or the number of test images")
    return result


def _unique(records: Sequence[Record]) -> list[Record]:
    """One of those whose numbers must be equal; two experiments', or studies', runs of one composition both stay."""
    chosen: dict[object, Record] = {}
    for record in records:
        options = [record.options.get(group) for group in ("experiment", "study")]
        key = (record.identity, *options) if not record.is_missing else record.job
        if key not in chosen or _precedence(record) > _precedence(chosen[key]):
            chosen[key] = record
    return list(chosen.values())


def _precedence(record: Record) -> tuple[bool, float]:
    return record.state == "finished", record.status.get("heartbeat", 0.0)


def _missing(job: Sequence[str], others: Sequence[Record]) -> Record:
    """A job without a run: what its command line says, and what that leaves as it is in another run of the sweep.

    An option may bring others, as a model does its activation; so where another option is chosen than in any run that
    is there, nothing is taken to be as there.
    """
    typed = {key: value for key, _, value in (line.lstrip("+").partition("=") for line in job)}
    seed = typed.pop("seed", "")
    groups = {group for other in others for group in other.options}
    options = {key: value for key, value in typed.items() if key in groups or not groups}
    alike = [other for other in others if options.items() <= other.options.items()]
    numbers = {key: _value(text) for key, text in typed.items() if key not in options}
    if "grad_clip" in numbers:
        numbers["grad_clip"] = numbers["grad_clip"] or 0
    return Record(
        state="missing",
        options={**(alike[0].options if alike else {}), **options},
        # As in settings, numbers are floats.
        settings={**(alike[0].settings if alike else {}), **json.loads(json.dumps(numbers), parse_int=float)},
        overrides=tuple(job),
        seed=int(seed) if seed.isdecimal() and len(seed) < 20 else None,
    )


def _value(text: str) -> Any:
    """A value as it is typed; YAML takes `1e-3` for a word."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return from_yaml(text)
    except ValueError:
        return text
