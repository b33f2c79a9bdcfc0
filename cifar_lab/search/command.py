"""Search for the best settings: `python -m cifar_lab.search search=adam model=vgg_a epochs=10 --trials 30`."""

import gc
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cifar_lab.config.paths import quoted
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine import exit_codes, torchrun
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import Interrupted, Interruption
from cifar_lab.runs import Run, Sweep, job_key
from cifar_lab.search.space import Search, checked_search
from cifar_lab.search.storage import SearchFolder, check_installed
from cifar_lab.search.trials import Strategy, Trial, TrialRecord, Trials, best_of
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import check_writable
from cifar_lab.terminal.process import UNWRITABLE
from cifar_lab.terminal.progress import clock

_LOOK_AGAIN_SECONDS = 1.0


def search(
    overrides: Annotated[
        list[str],
        typer.Argument(help="Axes, such as search=adam or optimizer.lr='interval(1e-4,1e-2)', and fixed settings."),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Total number of trials, including existing ones.")] = 20,
    startup: Annotated[int, typer.Option(min=1, help="Number of random trials before TPE and pruning begin.")] = 10,
    warmup: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of the epochs that a trial trains before it may be pruned.")
    ] = 0.25,
    pruning: Annotated[
        bool, typer.Option(help="Stop trials that are below the median of the finished trials at an epoch.")
    ] = True,
    sampler_seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler; seed= sets that of the runs.")] = 0,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with your own option files.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the runs; default: outputs/<name>.")] = None,
) -> int:
    """Search for the settings with the highest validation accuracy, with Optuna's TPE sampler and median pruning.

    Each trial is an ordinary run. Run the command again to resume the search. Several processes that run it, on one
    machine or on several with a shared folder, share the trials.
    """
    if torchrun.processes() is not None:
        raise UsageError("torchrun's processes train one run together; start a search several times without torchrun")
    plan = checked_search(overrides, config_dir, output)
    check_installed()
    check_writable(plan.folder)
    strategy = Strategy(startup, max(1, round(warmup * plan.epochs)), pruning, sampler_seed)
    plan, study = _opened(plan, strategy)
    interruption = Interruption()
    try:
        with interruption.listening():
            study.retry_failed()
            seconds: list[float] = []  # durations of the trials of this process
            while _train_next(study, plan, trials, interruption, seconds):
                pass
    except Interrupted as error:
        with suppress(OSError):
            _report(study, plan)
        print(f"error: interrupted by {error}; the same command resumes it", file=sys.stderr)
        return error.exit_code
    return _ended(_report(study, plan))


def _opened(plan: Search, strategy: Strategy) -> tuple[Search, Trials]:
    """Open the search's trials, under its former name if that folder has them; return the search and the trials."""

    def trials(search: Search) -> Trials:
        return Trials(SearchFolder(search.folder), search.axes, {"settings": search.settings}, strategy)

    former = plan.former
    if former is not None and SearchFolder(former.folder).journal_file.exists() and not plan.folder.exists():
        with suppress(UsageError):  # a different search
            return former, trials(former)
    return plan, trials(plan)


def _train_next(trials: Trials, plan: Search, total: int, interruption: Interruption, seconds: list[float]) -> bool:
    """Train the next trial and return whether there was one. Raise `Interrupted` on a signal, which frees the trial."""
    interruption.check()
    with trials.next(total) as trial:
        if trial is None:
            return False
        mean = sum(seconds) / len(seconds) if seconds else 0.0
        left = f", about {clock(mean * (total - trial.number))} left" * (mean > 0 and trial.number < total)
        print(f"\ntrial {trial.number} (of {total} in all{left}): {' '.join(trial.words)}", flush=True)
        gc.collect()  # a network and its trainer form a reference cycle; free its memory for this trial
        started = time.perf_counter()
        _train(trial, plan, interruption)
        seconds.append(time.perf_counter() - started)
    return True


def _train(trial: Trial, plan: Search, interruption: Interruption) -> None:
    """Train or find a trial's run and close the trial. Raise `Interrupted` on a signal."""
    from cifar_lab import train
    from cifar_lab.search.pruning import Pruning

    command = plan.command(trial.words)
    while True:
        try:
            result = train.run(command, [Pruning(trial.report)])
        except (RunFailedError, UsageError) as error:
            run = Sweep(plan.folder).runs_by_job().get(_job(command))
            state = "failed" if run is None else run.state()
            if state == "running":  # another process trains a trial with the same settings
                time.sleep(_LOOK_AGAIN_SECONDS)
                interruption.check()
                continue
            print(f"trial {trial.number}: {error}", flush=True)
            trial.end(
                state if state in ("pruned", "diverged") else "failed",
                folder=None if run is None else _folder(run, plan),
                error=None if state == "pruned" else str(error),
            )
            return
        run = Run(result["folder"])
        for epoch, accuracy in run.validated().items():
            trial.report(epoch, accuracy)  # a run that already existed has not reported yet
        trial.end("finished", result["val/acc"], folder=_folder(run, plan))
        print(f"trial {trial.number}: val acc {result['val/acc']:.2%}", flush=True)
        return


def _job(command: Sequence[str]) -> frozenset[str]:
    return job_key([line for line in command if "=" in line and not line.startswith("hydra.")])


def _folder(run: Run, plan: Search) -> str:
    return os.path.relpath(run.folder, plan.folder)


def _report(trials: Trials, plan: Search) -> list[TrialRecord]:
    """Print and write the report on the trials."""
    from cifar_lab.search import output

    records = trials.records()
    if not records:
        return records
    best = best_of(records)
    values = () if best is None else [f"{key}={value}" for key, value in best.values.items()]
    strategy = trials.strategy
    pruning = f"after {strategy.warmup_epochs} of {plan.epochs} epochs" if strategy.pruning else "none"
    facts = [
        f"searched: {'; '.join(map(str, plan.axes))}",
        f"fixed: {' '.join(plan.fixed) or 'the defaults'}; {plan.epochs} epochs, "
        f"seed {plan.settings['seed']:.0f}, protocol {plan.settings['protocol']['name']}",
        f"drawn by TPE (arXiv:2304.11127), the first {strategy.startup} at random, sampler seed {strategy.seed}; "
        f"median pruning: {pruning}",
    ]
    result = output.SearchReport(
        title=plan.name,
        facts=facts,
        trials=records,
        importances=trials.importances(),
        logarithmic=frozenset(axis.key for axis in plan.axes if axis.log),
        command="" if best is None else _over_seeds(plan, values),
    )
    print()
    output.report(result, trials.folder)
    return records


def _over_seeds(plan: Search, values: Sequence[str]) -> str:
    """Return the command that trains settings with five seeds other than the one that selected them."""
    fixed = [line for line in plan.fixed if not line.startswith("seed=")]
    first = int(plan.settings["seed"]) + 1
    words = [*plan.flags, *fixed, *values, f"name={quoted(f'{plan.name}-best')}", f"seed=range({first},{first + 5})"]
    return shlex.join(["python", "-m", "cifar_lab.train", "-m", *words])


def _ended(records: Sequence[TrialRecord]) -> int:
    """Print the failed and unfinished trials, and return the exit code."""
    failed = [str(trial.number) for trial in records if trial.state == "failed"]
    elsewhere = [str(trial.number) for trial in records if trial.state in ("running", "interrupted")]
    if failed:
        print(f"error: failed: trial {', '.join(failed)}; the same command trains them again", file=sys.stderr)
    if elsewhere:
        print(f"error: not finished: trial {', '.join(elsewhere)}, trained by other processes", file=sys.stderr)
    return exit_codes.FAILED if failed or elsewhere else 0


def main() -> None:
    """Run the command."""
    run_command(search, loses=UNWRITABLE)
