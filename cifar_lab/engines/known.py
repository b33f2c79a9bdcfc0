"""Find runs whose folder has another name than the command line gives them now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_lab.config.naming import key_of
from cifar_lab.engines.handover import Job
from cifar_lab.runs import Run
from cifar_lab.runs.fingerprints import HARDWARE, differences, digest, fingerprint, recorded, settings, with_value


def in_its_folder(job: Job, further: Iterable[Run] = ()) -> Job:
    """The job in the folder of its run, if there is one; settings that the run's hardware chose are left out.

    The run may have been named by other words that change no number, by a former name of the sweep, or when less was
    hashed. A finished one comes first.

    Args:
        job: As its command line says.
        further: Runs to look at besides those whose folder ends in the job's fingerprint.
    """
    own = Run(job.folder)
    is_named = job.folder.name.endswith(f"-{fingerprint(job.settings)[:8]}")
    others = _named(job.settings, (job.folder.parent, *job.former)) if is_named else ()
    runs = [own] if own.config_file.exists() else [*others, *further]
    for run in sorted(runs, key=Run.has_result, reverse=True):
        chosen = _chosen_by_hardware(run, job.settings)
        if chosen is not None and not (chosen and job.settings["retrain"]):  # with `retrain` its own words decide
            break
    else:
        return job
    if run is not own:
        with suppress(OSError):
            job.folder.rmdir()  # Hydra has made it
    typed = {*chosen, *(["trainer"] if "trainer.accelerator" in chosen else [])}
    words = [word for word in job.words if key_of(word) not in typed]
    config = job.settings
    for key in chosen:
        config = with_value(config, key, HARDWARE[key])
    return replace(job, folder=Path(run.folder).absolute(), words=words, settings=config)


def run_of(config: Mapping[str, Any], folders: Sequence[Path]) -> Run | None:
    """The run of a configuration in one of these folders, which need not have finished."""
    return next((run for run in _named(config, folders) if _chosen_by_hardware(run, config) is not None), None)


def _named(config: Mapping[str, Any], folders: Sequence[Path]) -> Iterator[Run]:
    """Runs whose folder's name ends in the fingerprint of a configuration, or in that without typed hardware."""
    ends = dict.fromkeys(each[:8] for each in (fingerprint(config), digest(settings(config, with_hardware=False))))
    return (Run(path) for end in ends for folder in folders for path in sorted(folder.glob(f"*-{end}")))


def _chosen_by_hardware(run: Run, config: Mapping[str, Any]) -> set[str] | None:
    """The typed settings that a run's hardware has chosen by itself, if it is a run of `config`, else None."""
    try:
        changed = differences(run.config(), config)
        chosen = recorded(run.result()) if changed and run.has_result() else {}
    except (OSError, ValueError):
        return None
    alike = {key for key, (typed, now) in changed.items() if typed is None and key in chosen and chosen[key] == now}
    return alike if alike == changed.keys() else None
