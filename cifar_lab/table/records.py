"""Records of the runs to compare, from sweeps, folders and the archive; each composition and seed once."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from cifar_lab.runs import Archive, Record, Run, from_yaml, job_key, read_run
from cifar_lab.runs.fingerprints import LIMITS
from cifar_lab.terminal.progress import with_progress


def collect(sweeps: Iterable[tuple[Iterable[Run], Sequence[tuple[Sequence[str], Run | None]]]]) -> list[Record]:
    """Read runs, and find the jobs of sweeps that have no run.

    Args:
        sweeps: Runs with the jobs of their sweep, from `Sweep.jobs`; no jobs if the runs are not from a sweep.

    Returns:
        The runs of each sweep in the order of its jobs, then runs without a job in the given order. If several runs
        have the same fingerprint, only one: the latest, a finished one if possible.
    """
    read_sweeps = []
    for runs, jobs in sweeps:
        places = {os.path.abspath(run.folder): run for run in runs}
        places |= {os.path.abspath(run.folder): run for _, run in jobs if run is not None}
        records = {place: read_run(run) for place, run in with_progress(list(places.items()), "reading runs")}
        read_sweeps.append((records, jobs))
    present = {record.job for records, _ in read_sweeps for record in records.values()}
    of_jobs: list[Record] = []
    for records, jobs in read_sweeps:
        ordered = []
        for job, run in jobs:
            if run is not None:
                ordered.append(records[os.path.abspath(run.folder)])
            elif job_key(job) not in present:
                ordered.append(_missing(job, list(records.values())))
        of_jobs += dict.fromkeys([*ordered, *records.values()])
    return _unique(of_jobs)


def gather(runs: Iterable[Run], archive: Archive | None = None) -> list[Record]:
    """Read runs, and add those of the archive that are in none of the folders or unfinished there.

    Raises:
        UnreadableError: The archive is damaged. A damaged folder yields a run in the state `unreadable`.
    """
    records = collect([(runs, [])])
    if archive is None:
        return records
    there = {record.key: record.state for record in records if record.has_ended}
    added = [record for record in archive.read() if there.get(record.key) not in ("finished", record.state)]
    finished = {record.key for record in added if record.is_finished}
    return [*(record for record in records if record.key not in finished), *added]


def _unique(records: Sequence[Record]) -> list[Record]:
    """Keep one of several runs whose numbers must be equal; different experiments, studies and limits stay separate."""

    def precedence(record: Record) -> tuple[bool, float]:
        return record.is_finished, record.status.get("heartbeat", 0.0)

    chosen: dict[object, Record] = {}
    for record in records:
        limits = [record.settings.get(key) for key in LIMITS]  # runs that differ in these have separate rows
        key = record.job if record.is_missing else (*record.key, record.options.get("experiment"), *limits)
        if key not in chosen or precedence(record) > precedence(chosen[key]):
            chosen[key] = record
    return list(chosen.values())


def _missing(job: Sequence[str], others: Sequence[Record]) -> Record:
    """Describe a job without a run by its command line, and take the other settings from a run with the same options.

    An option may choose other options, as a model chooses its activation. So if no run has the same options, nothing is
    taken from the runs.
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
        # Numbers are floats, as in settings.
        settings={**(alike[0].settings if alike else {}), **json.loads(json.dumps(numbers), parse_int=float)},
        overrides=tuple(job),
        seed=int(seed) if seed.isdecimal() and len(seed) < 20 else None,
    )


def _value(text: str) -> Any:
    """Parse a value of the command line; `float` first, because YAML reads `1e-3` as a string."""
    for parse in (float, from_yaml):
        with suppress(ValueError):
            return parse(text)
    return text
