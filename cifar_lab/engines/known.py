"""Find runs whose folder has a different name than the command line now gives them."""

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
    """Return the job in the folder of its existing run, if any, without typed settings that the run's hardware chose.

    The run's folder may have a different name because of words that change no numbers, because the sweep was renamed,
    or because an earlier version hashed fewer settings. A finished run takes precedence.

    Args:
        job: The job with the folder of its command line.
        further: Runs to consider in addition to those whose folder ends in the job's fingerprint.
    """
    own = Run(job.folder)
    is_named = job.folder.name.endswith(f"-{fingerprint(job.settings)[:8]}")
    others = _named(job.settings, (job.folder.parent, *job.former)) if is_named else ()
    runs = [own] if own.config_file.exists() else [*others, *further]
    for run in sorted(runs, key=Run.has_result, reverse=True):
        chosen = _chosen_by_hardware(run, job.settings)
        # With `retrain`, the typed hardware settings are kept.
        if chosen is not None and not (chosen and job.settings["retrain"]):
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
    """Return the run of a configuration in one of these folders, finished or not; None if there is none."""
    return next((run for run in _named(config, folders) if _chosen_by_hardware(run, config) is not None), None)


def _named(config: Mapping[str, Any], folders: Sequence[Path]) -> Iterator[Run]:
    """Yield runs whose folder's name ends in a configuration's fingerprint, with or without typed hardware."""
    ends = dict.fromkeys(each[:8] for each in (fingerprint(config), digest(settings(config, with_hardware=False))))
    return (Run(path) for end in ends for folder in folders for path in sorted(folder.glob(f"*-{end}")))


def _chosen_by_hardware(run: Run, config: Mapping[str, Any]) -> set[str] | None:
    """Return the typed settings that a run's hardware chose automatically; None if it is not a run of `config`."""
    try:
        changed = differences(run.config(), config)
        chosen = recorded(run.result()) if changed and run.has_result() else {}
    except (OSError, ValueError):
        return None
    alike = {key for key, (typed, now) in changed.items() if typed is None and key in chosen and chosen[key] == now}
    return alike if alike == changed.keys() else None
