"""Train one composition or a sweep: `python -m cifar_lab.train model=vgg_a bn=true`.

Help and errors in the command line appear without delay, because torch and Lightning are imported when training starts
and the figures when it has ended.
"""

import gc
import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab import table
from cifar_lab.config import Plan, checked, here, merged, names_run
from cifar_lab.config.command_line import parsed
from cifar_lab.config.preflight import planned
from cifar_lab.engines.application import run_application, run_jobs, show
from cifar_lab.engines.handover import Job, RunFailedError, Turn, writing
from cifar_lab.machine import exit_codes, torchrun
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import HOW_IT_IS_RUN, Run, Sweep, UnreadableError, locked
from cifar_lab.runs.reading import reason_of
from cifar_lab.terminal.process import printing
from cifar_lab.terminal.progress import clock
from cifar_lab.train.attempt import (
    Attempt,
    TrainingTask,
    checkpoint_of,
    goes_beyond,
    hyperparameters,
    is_done,
    set_aside,
    trains_again,
)
from cifar_lab.train.debug import leaving_nothing
from cifar_lab.train.outcome import keeping_finished, recording_outcome
from cifar_lab.train.processes.led import Leader, follow, leading
from cifar_lab.train.processes.spawned import trained_by

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


def main() -> None:
    """Run the command line; exit with 0, 1 (a run failed), 2 (invalid command line), 130 or 143 (a signal)."""
    if torchrun.rank() > 0:
        follow()
        return
    with leading() as leader:
        run_application(lambda: command(sys.argv[1:], leader))


def command(arguments: Sequence[str], leader: Leader | None = None) -> None:
    """Train what a command line describes, or show the requested information; raises the same errors as `launch`."""
    line = parsed(arguments)
    if line.trains:
        plan = planned(line)
        with leaving_nothing(plan):
            launch(plan, leader=leader)
    else:
        show(line)


def run(overrides: Sequence[str], callbacks: Sequence["Callback"] = ()) -> dict[str, Any]:
    """Train one composition from Python, in this process: `run(["model=vgg_a", "epochs=1"])`.

    Equivalent to `python -m cifar_lab.train` with the same overrides. Seeds the global random states.

    Args:
        overrides: Overrides as on the command line.
        callbacks: Lightning callbacks, called after the run's own; not recorded.

    Returns:
        The result, with the keys of `docs/run_directory.md`, and its `folder`.

    Raises:
        ValueError: The composition cannot be run.
        RunFailedError: The run failed or diverged; its folder contains the reason.
    """
    plan = checked(_words(overrides))
    if plan.sweep_folder is not None:
        raise UsageError(f"run() trains one composition, but {' '.join(overrides)} is a sweep; use sweep()")
    if plan.composition["debug"]:
        raise UsageError("run() does not accept debug=, which leaves no result; use python -m cifar_lab.train")
    (folder,) = launch(plan, callbacks)
    return Run(folder).outcome()


def sweep(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Train every composition of a sweep from Python: `sweep(["loss=ce,mse", "seed=range(0,3)"])`.

    Like `python -m cifar_lab.train --multirun`, it writes a table to the sweep's folder and continues past failed runs.

    Args:
        overrides: Overrides as on the command line, without `--multirun`.

    Returns:
        For each job, in order: `status`, `folder`, `overrides`, and either its result, with the keys of
        `docs/run_directory.md`, or its `error`.

    Raises:
        ValueError: The sweep cannot be run; the message is one line.
    """
    plan = checked(["--multirun", *_words(overrides)])
    assert plan.sweep_folder is not None
    with suppress(RunFailedError):
        launch(plan)
    jobs = Sweep(plan.sweep_folder).jobs()
    return [run.outcome() if run else {"status": "missing", "overrides": words} for words, run in jobs]


def _words(overrides: Sequence[str]) -> Sequence[str]:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError("training processes import this script again; call run() and sweep() under "
                         "if __name__ == '__main__':")  # fmt: skip
    if torchrun.processes() is not None:
        raise UsageError("run() and sweep() do not work under torchrun; set trainer.devices= instead, or use "
                         "torchrun -m cifar_lab.train")  # fmt: skip
    if isinstance(overrides, str):
        raise UsageError(f"the overrides must be a list, such as {overrides.split()!r}")
    return overrides


@printing()
def launch(plan: Plan, callbacks: Sequence["Callback"] = (), leader: Leader | None = None) -> list[Path]:
    """Train the jobs of a checked command line and tabulate a sweep; return the folders of the runs.

    Raises:
        ValueError: The command line cannot be run.
        RunFailedError: A run failed or diverged, or the table could not be written.
        KeyboardInterrupt: A signal interrupted training.
    """
    task = partial(train, callbacks=tuple(callbacks), leader=leader)
    try:
        folders = run_jobs(task, plan, _effort)
    except BaseException:
        with suppress(RunFailedError):  # the first error is the one to report
            tabulate(plan.sweep_folder)
        raise
    tabulate(plan.sweep_folder)
    return folders


def _effort(config: Mapping[str, Any]) -> float | None:
    from cifar_lab.train.cost import effort  # needed by sweeps only

    return effort(config)


def tabulate(sweep_folder: Path | None) -> None:
    """Write and show the table of a sweep if at least one of its jobs has started.

    Raises:
        RunFailedError: The table could not be written.
    """
    if sweep_folder is not None and any(run for _, run in Sweep(sweep_folder).jobs()):
        try:
            table.report(sweep_folder)
        except (OSError, UsageError) as error:
            raise RunFailedError(f"the table was not written: {' '.join(str(error).split())}") from None


def train(job: Job, callbacks: Sequence["Callback"] = (), leader: Leader | None = None) -> bool:
    """Train or resume a job; return False if there was nothing left to train.

    Raises:
        LockedError: Another process is training it.
        RunFailedError: The run ended without a result; its folder contains the reason.
        Interrupted: A signal interrupted training.
    """
    run, turn = Run(job.folder), job.turn
    if turn is not None:
        gc.collect()  # frees the previous job's network, which is part of a reference cycle
        left = turn.seconds_left()
        print(f"{turn}{'' if left is None else f', {clock(left)} left'}: {run.folder.name}", flush=True)
    interruption = Interruption()
    with interruption.listening(), writing(), _reading(run, turn):
        is_trained = _train(job, run, interruption, callbacks, leader)
    if debug := job.settings["debug"]:
        if debug["kind"] == "fast":
            print("debug=fast: training, validation and test have run; nothing is kept", flush=True)
        interruption.check()
        return True
    from cifar_lab.train.summary import draw, origin, summary

    with _reading(run, turn):
        lines = [summary(run)]
        if not is_trained:
            run.tidy()
            lines.append(origin(run, job.settings))
            with suppress(OSError):  # the folder may be another user's, not writable
                draw(run, missing=True)
    print("\n".join(lines), flush=True)
    interruption.check()
    return is_trained


def _train(
    job: Job, run: Run, interruption: Interruption, callbacks: Sequence["Callback"], leader: Leader | None
) -> bool:
    set_aside(run, job.settings, job.turn)
    if is_done(run, job.settings, job.turn):
        return False
    with locked(run.lock_file):
        if is_done(run, job.settings, job.turn):
            return False
        beyond, checkpoint = goes_beyond(run, job.settings), checkpoint_of(run, job.settings, job.turn)
        train_run(job, Attempt(run, job.turn, interruption, checkpoint, beyond, tuple(callbacks)), leader)
    return True


@contextmanager
def _reading(run: Run, turn: Turn | None) -> Iterator[None]:
    """Turn an error about unreadable files of a run into a `RunFailedError` that explains how to recover."""
    try:
        yield
    except (UnreadableError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and run.folder not in Path(str(error.filename)).parents:
            raise
        raise RunFailedError(f"{reason_of(error)}; {trains_again(run, turn)}", exit_codes.USAGE) from None


def train_run(job: Job, attempt: Attempt, leader: Leader | None = None) -> None:
    """Train a run in this process, in torchrun's, or in new processes for several devices; the caller holds its lock.

    Raises:
        RunFailedError: The run ended without a result; its folder contains the reason.
    """
    run, settings = attempt.run, job.settings
    overrides = [word for word in job.words if not word.startswith(HOW_IT_IS_RUN)]
    typed = [word for word in overrides if not word.startswith("name=")]
    with keeping_finished(run), recording_outcome(run, in_sweep=job.turn is not None):
        if names_run(settings["resume"]):
            settings = merged(run, settings, overrides)
        if attempt.checkpoint is not None:
            from cifar_lab.train.continuity import longer

            if line := longer(run, settings):
                print(line, flush=True)
        run.start(settings, overrides, job.options, job.follows, goes_on=attempt.checkpoint is not None)
        from cifar_lab.train.continuity import same_threads
        from cifar_lab.train.fitting import trained

        columns = hyperparameters(settings, job.options, typed, job.common)
        count = here(settings) if leader is None else leader.count
        with same_threads(attempt, count) as threads:
            task = TrainingTask(settings, attempt, job.options, typed, columns, threads)
            if leader is not None:
                leader.trained(task)
            elif count == 1:
                trained(task)
            else:
                trained_by(count, task)
