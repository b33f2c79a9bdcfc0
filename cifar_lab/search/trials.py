"""The trials of a search, which Optuna stores in the folder that its processes share.

A running trial is free if no living process holds its lock: the process that trained it was interrupted or killed, and
the next one resumes it. Optuna's own heartbeat needs a database and would restart such a trial.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_lab.runs import LockedError, guarded, locked, owner
from cifar_lab.search.storage import SearchFolder, opened

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from cifar_lab.search.space import Axis

_REPLACES = "replaces"
_ENOUGH = 5  # finished trials needed to estimate importances
_BEST = 0.1  # fraction of the trials that PED-ANOVA compares with the rest


@dataclass(frozen=True)
class Strategy:
    """Settings of the sampler and the pruner."""

    startup: int = 10  # random trials before TPE and pruning
    warmup_epochs: int = 1  # epochs that each trial trains before it may be pruned
    pruning: bool = True  # whether trials are pruned
    seed: int = 0  # seed of the sampler


@dataclass(frozen=True)
class TrialRecord:
    """A trial in plain values."""

    number: int  # from 0, in start order
    values: Mapping[str, str]  # value of each key, as typed on the command line
    state: str  # finished, pruned, diverged, failed, interrupted or running
    accuracy: float | None = None  # `val/acc` of the chosen epoch, from 0 to 1; None unless finished
    reports: Mapping[int, float] = field(default_factory=dict)  # `val/acc` by epoch, from 1
    folder: str | None = None  # run folder relative to the search's; None before the trial has ended
    error: str | None = None  # why it failed or diverged

    @property
    def epoch(self) -> int:
        """The last validated epoch, from 1; 0 before the first."""
        return max(self.reports, default=0)

    @property
    def description(self) -> str:
        """Text of the state, with epoch and accuracy (not a result) of an unfinished trial, or the error."""
        if self.state in ("pruned", "interrupted", "running") and self.reports:
            return f"{self.state} at epoch {self.epoch}, val acc {self.reports[self.epoch]:.2%}"
        return f"{self.state}: {self.error}" if self.error else self.state


def best_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the finished trial with the highest accuracy, the first of equals; None if none has finished."""
    finished = [trial for trial in trials if trial.accuracy is not None]
    return max(finished, key=lambda trial: trial.accuracy or 0.0, default=None)


class Trial:
    """A trial that this process holds."""

    def __init__(self, trials: "Trials", trial: "optuna.Trial") -> None:
        self._trials = trials
        self._trial = trial
        self.number = trial.number  # from 0
        self.words = [axis.word(_suggested(trial, axis)) for axis in trials.axes]  # overrides that set its values

    def report(self, epoch: int, accuracy: float) -> bool:
        """Store an epoch's `val/acc`; return whether to prune: the trial is below the median of finished trials."""
        if epoch not in self._trials.frozen(self.number).intermediate_values:
            self._trial.report(accuracy, epoch)
        return self._trial.should_prune()

    def end(self, state: str, accuracy: float | None = None, **details: object) -> None:
        """Close the trial.

        Args:
            state: State of its run: finished, pruned, diverged or failed. The sampler learns from divergence and
                pruning that the settings are bad, and learns nothing from a failure.
            accuracy: `val/acc` of the chosen epoch, if finished.
            details: Further values to store, except None.
        """
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL}
        for name, value in {"state": state, **details}.items():
            if value is not None:
                self._trial.set_user_attr(name, value)
        self._trials.study.tell(self.number, accuracy, states.get(state, TrialState.PRUNED))


class Trials:
    """The trials of a search, of all its processes.

    Args:
        folder: Folder of the search.
        axes: Keys that the trials vary.
        definition: Plain values that all trials share and that identify the search.
        strategy: Settings of the sampler and the pruner.

    Raises:
        ValueError: The folder holds a different search, or its journal cannot be read.
        OSError: The folder cannot be written.
    """

    def __init__(
        self, folder: SearchFolder, axes: Sequence["Axis"], definition: Mapping[str, Any], strategy: Strategy
    ) -> None:
        import optuna

        self.folder = folder
        self.axes = axes
        self.strategy = strategy
        median = optuna.pruners.MedianPruner(strategy.startup, strategy.warmup_epochs)
        definition = {**definition, "axes": list(map(str, axes)), "strategy": asdict(strategy)}
        self.study = opened(folder, definition, median if strategy.pruning else optuna.pruners.NopPruner())

    def frozen(self, number: int) -> "FrozenTrial":
        """Return the stored state of a trial."""
        return self.study.get_trials(deepcopy=False)[number]

    def retry_failed(self) -> None:
        """Queue the settings of each failed trial once."""
        from optuna.trial import TrialState

        with guarded(self.folder.journal_file):
            replaced = self._replaced()
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
                if trial.number not in replaced:
                    self.study.enqueue_trial(trial.params, {_REPLACES: trial.number})

    @contextmanager
    def next(self, total: int) -> Iterator[Trial | None]:
        """Hold a free trial, else a new one while there are fewer than `total`, else None."""
        with ExitStack() as held:
            with guarded(self.folder.journal_file):
                trial = self._free() or self._new(total)
                try:
                    if trial is not None:
                        held.enter_context(locked(self.folder.lock(trial.number)))
                except LockedError:  # its owner is alive, by another host's clock
                    trial = None
            yield trial

    def _free(self) -> Trial | None:
        import optuna

        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if owner(self.folder.lock(trial.number)) is None:
                self.study.sampler = self._sampler(trial.number)  # some of its values may not have been drawn
                return Trial(self, optuna.Trial(self.study, trial._trial_id))
        return None

    def _new(self, total: int) -> Trial | None:
        from optuna.trial import TrialState

        there = self.study.get_trials(deepcopy=False)
        waiting = any(trial.state == TrialState.WAITING for trial in there)
        if not waiting and len(there) - len(self._replaced()) >= total:
            return None
        self.study.sampler = self._sampler(len(there))
        return Trial(self, self.study.ask())

    def _sampler(self, number: int) -> "optuna.samplers.BaseSampler":
        """Return a sampler seeded for one trial, so that an interrupted search draws the same trials."""
        import optuna

        seed = int(np.random.SeedSequence([self.strategy.seed, number]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=self.strategy.startup, seed=seed)

    def _replaced(self) -> set[int]:
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs[_REPLACES] for trial in trials if _REPLACES in trial.user_attrs}

    def records(self) -> list[TrialRecord]:
        """Return all trials in order, without failed ones that another trial replaces."""
        replaced = self._replaced()
        return [self._record(trial) for trial in self.study.get_trials(deepcopy=False) if trial.number not in replaced]

    def _record(self, trial: "FrozenTrial") -> TrialRecord:
        kept = trial.user_attrs
        state = kept.get("state") if trial.state.is_finished() else None
        if state is None:
            state = "interrupted" if owner(self.folder.lock(trial.number)) is None else "running"
        drawn = [axis for axis in self.axes if axis.key in trial.params]
        return TrialRecord(
            number=trial.number,
            values={axis.key: axis.word(trial.params[axis.key]).partition("=")[2] for axis in drawn},
            state=state,
            accuracy=trial.value if state == "finished" else None,
            reports=dict(sorted(trial.intermediate_values.items())),
            folder=kept.get("folder"),
            error=kept.get("error"),
        )

    def importances(self) -> dict[str, float]:
        """Estimate how much each key determines whether a trial is among the best, by PED-ANOVA (arXiv:2304.10255).

        Returns:
            Importances summing to 1, in descending order; empty with fewer than five finished trials or if all
            accuracies are equal.
        """
        import optuna

        values = [trial.value for trial in self.study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        if len(values) < _ENOUGH or len(set(values)) == 1:
            return {}
        best = max(_BEST, min(_ENOUGH / len(values), 0.5))  # PED-ANOVA needs at least five best trials
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        return optuna.importance.get_param_importances(self.study, evaluator=evaluator)


def _suggested(trial: "optuna.Trial", axis: "Axis") -> str | float:
    if axis.choices:
        return trial.suggest_categorical(axis.key, axis.choices)
    if axis.step is not None:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), step=axis.step, log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)
