"""Train one composition, or each of a sweep: `python -m cifar_lab.train model=vgg_a bn=true`.

torch and Lightning are imported where training starts, so that help and mistakes do not wait for them, and what
draws and tabulates where it has ended.
"""

import gc
import math
import multiprocessing
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cifar_lab import table
from cifar_lab.config import Preflight, checked, here, interpolations, merged, names_run, resolved
from cifar_lab.engines.application import run_application, run_jobs
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.engines.jobs import Job, clock, timed
from cifar_lab.machine import exit_codes, torchrun
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import HOW_IT_IS_RUN, LockedError, Run, Sweep, find_runs, job_key, locked
from cifar_lab.train.attempt import Attempt, checkpoint_of, is_done
from cifar_lab.train.continuity import same_processes, same_threads
from cifar_lab.train.fitting import Work, trained
from cifar_lab.train.hyperparameters import hyperparameters
from cifar_lab.train.outcome import recording_outcome
from cifar_lab.train.processes import Leader, follow, leading, trained_by

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


def main() -> None:
    """The command line; exits with 0, 1 (a run failed), 2 (it cannot be run as asked) or 130 (interrupted)."""
    if torchrun.rank() > 0:
        follow()
        return
    with leading() as leader:
        run_application(lambda: launch(checked(sys.argv[1:]), leader=leader))


def run(overrides: Sequence[str], callbacks: Sequence["Callback"] = ()) -> dict[str, Any]:
    """Train one composition from Python, in this process: `run(["model=vgg_a", "epochs=1"])`.

    It composes, checks, prints and writes what `python -m cifar_lab.train` with the same words does. Global random
    states are seeded.

    Args:
        overrides: The command line, a word each.
        callbacks: Lightning's, called after the run's own; what they change is recorded nowhere.

    Returns:
        The result by the names of `docs/run_directory.md`, and its `folder`.

    Raises:
        ValueError: The composition cannot be run, in one line.
        RunFailedError: The run failed or diverged; its folder says why.
    """
    asked = checked(_words(overrides))
    if not asked.trains or asked.sweep_folder is not None:
        raise ValueError(f"run() trains one composition, which {' '.join(overrides)} is not; sweep() trains several")
    (folder,) = launch(asked, callbacks)
    return Run(folder).outcome()


def sweep(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Train every composition of a sweep from Python: `sweep(["loss=ce,mse", "seed=range(0,3)"])`.

    As `python -m cifar_lab.train --multirun` it leaves a table in the sweep's folder, and goes on where a run fails.

    Args:
        overrides: The command line without `--multirun`, a word each.

    Returns:
        For each job, in order, its `status`, `folder`, `overrides`, and, if it finished, its result by the names of
        `docs/run_directory.md`, else its `error`.

    Raises:
        ValueError: The sweep cannot be run, in one line.
    """
    asked = checked(["--multirun", *_words(overrides)])
    if asked.sweep_folder is None:
        raise ValueError(f"sweep() trains, which {' '.join(overrides)} does not ask for")
    with suppress(RunFailedError):
        launch(asked)
    runs = Sweep(asked.sweep_folder).runs_by_job()
    return [
        runs[job_key(job)].outcome() if job_key(job) in runs else {"status": "missing", "overrides": job}
        for job in asked.jobs
    ]


def _words(overrides: Sequence[str]) -> Sequence[str]:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ValueError("a process that trains reads this script anew; call run() and sweep() under "
                         "if __name__ == '__main__':")  # fmt: skip
    if torchrun.processes() is not None:
        raise ValueError("under torchrun, python -m cifar_lab.train trains; trainer.devices= is for run() and sweep()")
    if isinstance(overrides, str):
        raise ValueError(f"a list of words is needed, such as {overrides.split()!r}")
    return overrides


def launch(asked: Preflight, callbacks: Sequence["Callback"] = (), leader: Leader | None = None) -> list[Path]:
    """Train what a checked command line says, and compare the runs of a sweep.

    Args:
        asked: The checked command line.
        callbacks: Lightning's, called after each run's own.
        leader: Of torchrun's processes, where there are several.

    Returns:
        The folders of the runs.

    Raises:
        ValueError: It cannot be run, in one line.
        RunFailedError: A run failed or diverged, or the table could not be written.
    """

    @wraps(train)
    def task(config: DictConfig, job: Job | None) -> float:
        return train(config, job, callbacks, leader)

    try:
        folders = run_jobs(task, asked)
    except BaseException:
        with suppress(RunFailedError):  # what ended the sweep is what the user must know
            tabulate(asked.sweep_folder)
        raise
    tabulate(asked.sweep_folder)
    return folders


def tabulate(sweep_folder: Path | None) -> None:
    """Write and show the table of a sweep, if it is one of which something has run.

    Raises:
        RunFailedError: It could not be written.
    """
    if sweep_folder is not None and any(find_runs(sweep_folder)):
        try:
            table.report(sweep_folder)
        except Exception as error:  # the runs are there, whatever is wrong with the table
            line = " ".join(str(error).split())
            raise RunFailedError(f"the table was not written: {type(error).__name__}: {line}") from None


def train(
    config: DictConfig, job: Job | None = None, callbacks: Sequence["Callback"] = (), leader: Leader | None = None
) -> float:
    """Train a composition and leave its run directory, or go on with what an earlier attempt has left there.

    Args:
        config: The composed configuration; Hydra has made the run's folder.
        job: Which job of a sweep it is; of a sweep, finished runs are not trained again, and others gone on with.
        callbacks: Lightning's, called after the run's own.
        leader: Of torchrun's processes, where there are several.

    Returns:
        The validation accuracy of the chosen weights, from 0 to 1; NaN where another process trains the run.

    Raises:
        RunFailedError: The run ended without a result; its folder says why.
        Interrupted: A signal ended it.
    """
    run = Run(HydraConfig.get().runtime.output_dir)
    if job is not None:
        if job.again is not None and run.folder not in job.again:
            return math.nan
        gc.collect()  # a network and what trains it refer to each other; this job may need the memory of the one before
        left = job.seconds_left()
        print(f"{job}{'' if left is None else f', {clock(left)} left'}: {run.folder.name}", flush=True)
    interruption = Interruption()
    with interruption.listening():
        try:
            if not is_done(run, config, job):
                with locked(run.lock_file):
                    if not is_done(run, config, job):
                        checkpoint = checkpoint_of(run, config, job)
                        train_run(config, Attempt(run, job, interruption, checkpoint, tuple(callbacks)), leader)
        except LockedError as owner:
            return leave(run, job, owner)
    from cifar_lab.train.summary import summary

    result = run.result()
    print(summary(run.folder, result), flush=True)
    interruption.check()
    return float(result["val/acc"])


def leave(run: Run, job: Job | None, owner: LockedError) -> float:
    """Leave a run to the process that trains it.

    Raises:
        RunFailedError: It is not one of a sweep, of which it could be looked at again.
    """
    if job is None:
        line = f"{run.folder} is being trained by {owner}; set hydra.run.dir= to another"
        raise RunFailedError(line, exit_codes.USAGE)
    print(f"{run.folder.name} is being trained by {owner}", flush=True)
    job.left.append(run.folder)
    return math.nan


def train_run(config: DictConfig, attempt: Attempt, leader: Leader | None = None) -> None:
    """Train a run whose lock is held, and write its directory from the first file to the result.

    This process trains it, torchrun's all do, or, for several devices, those that it starts.

    Raises:
        RunFailedError: The run ended without a result; its folder says why.
    """
    hydra, run, job = HydraConfig.get(), attempt.run, attempt.job
    options = {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    overrides = [line for line in hydra.overrides.task if not line.startswith(HOW_IT_IS_RUN)]
    typed = [line for line in overrides if not line.startswith("name=")]
    with recording_outcome(run, in_sweep=job is not None), timed([] if job is None else job.seconds):
        follows = interpolations(config)
        settled = resolved(config)
        if names_run(config.resume):
            settled = merged(run, settled, overrides)
        run.start(settled, overrides, options, follows, goes_on=attempt.checkpoint is not None)
        common = None if job is None else hydra.job.config.override_dirname.exclude_keys
        columns = hyperparameters(settled, options, typed, common)
        count = same_processes(attempt, here(settled) if leader is None else leader.count)
        with same_threads(run, count) as threads:
            work = Work(settled, attempt, options, typed, columns, threads)
            if leader is not None:
                result = leader.trained(work)
            else:
                result = trained(work) if count == 1 else trained_by(count, work)
        run.finish(result)
