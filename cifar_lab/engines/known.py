"""Find finished runs whose folder has another name than the command line gives them now."""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict

from cifar_lab.config import Plan
from cifar_lab.config.command_line import PlannedJob
from cifar_lab.config.naming import key_of, plain
from cifar_lab.engines.handover import Job
from cifar_lab.runs import Run, Sweep, UnreadableError, job_key
from cifar_lab.runs.fingerprints import HARDWARE, fingerprint, leaves, recorded, settings


def as_trained(plan: Plan) -> Plan:
    """Leave out of each job what the hardware has chosen by itself in a finished run, so that it is that run."""
    if plan.composition["retrain"] or not any(map(_is_of_hardware, itertools.chain(*(job.words for job in plan.jobs)))):
        return plan
    runs = {} if plan.sweep_folder is None else Sweep(plan.sweep_folder).runs_by_job()
    return replace(plan, jobs=[_as_trained(job, plan, runs) for job in plan.jobs])


def _is_of_hardware(word: str) -> bool:
    return key_of(word) in HARDWARE or word in ("trainer=cpu", "trainer=gpu")


def _as_trained(job: PlannedJob, plan: Plan, runs: Mapping[frozenset[str], Run]) -> PlannedJob:
    words = [word for word in job.words if not _is_of_hardware(word)]
    if words == job.words or job_key(job.words) in runs:
        return job
    if plan.sweep_folder is None:
        if "resume=auto" not in words:
            return job
        composed = plan.compose(PlannedJob(words))
        unresolved: Any = OmegaConf.to_container(plan.composed(job).hydra.run, resolve=False)
        with open_dict(composed):
            composed.hydra.run.dir = unresolved["dir"]
        run = Run(composed.hydra.run.dir)
    elif job_key(words) in runs:
        composed, run = plan.compose(PlannedJob(words)), runs[job_key(words)]
    else:
        return job
    if not run.has_result() or (saved := _saved(run)) is None:
        return job
    typed, bare = plain(plan.composed(job)), plain(composed)
    hardware = {key: value for key, value in leaves(settings(typed)) if key in HARDWARE}
    chosen = recorded(run.result())
    is_the_run = (
        fingerprint(saved) == fingerprint(bare)
        and settings(typed, with_hardware=False) == settings(bare, with_hardware=False)
        and all(chosen.get(key) == value for key, value in hardware.items())
    )
    return PlannedJob(words, composed) if is_the_run else job


def _saved(run: Run) -> dict[str, Any] | None:
    """A run's configuration; None if it cannot be read, which is told where the run is trained."""
    try:
        return run.config()
    except (UnreadableError, FileNotFoundError):
        return None


def in_its_folder(job: Job, runs: Mapping[frozenset[str], Run]) -> Job:
    """The job in the folder of its finished run, where that was named when fewer settings were hashed."""
    run = runs.get(job_key(job.words))
    if run is None or Run(job.folder).config_file.exists() or not run.has_result():
        return job
    if (saved := _saved(run)) is None or fingerprint(saved) != fingerprint(job.settings):
        return job
    with suppress(OSError):
        job.folder.rmdir()  # Hydra has made it
    return replace(job, folder=Path(run.folder).absolute())
