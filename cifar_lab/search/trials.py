"""The trials of a search, kept by Optuna in the search's folder, whose processes share them.

A trial that is open and whose lock nobody living has is free: the process that trained it was interrupted or killed,
and whoever is next goes on with it. Optuna's own heartbeat needs a database, and would begin such a trial anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_lab.runs import LockedError, guarded, locked, owner
from cifar_lab.search.folder import SearchFolder
from cifar_lab.search.records import TrialRecord
from cifar_lab.search.storage import opened

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from cifar_lab.search.space import Axis

_REPLACES = "replaces"
_ENOUGH = 5  # finished trials, below which nothing is said of what matters
_BEST = 0.1  # share of the trials that PED-ANOVA sets against the rest


@dataclass(frozen=True)
class Strategy:
    """How a search goes.

    Attributes:
        startup: Trials that are drawn at random first, of which none is pruned.
        warmup_epochs: That each trial trains before it may be pruned.
        pruning: Whether trials are.
        seed: Of what is drawn.
    """

    startup: int = 10
    warmup_epochs: int = 1
    pruning: bool = True
    seed: int = 0


class Trial:
    """One of a search's trials, while this process has it.

    Args:
        trials: Whose it is.
        trial: Optuna's.

    Attributes:
        number: From 0.
        values: A value for each axis, as Optuna has it.
        words: The same as words of a command line.
    """

    def __init__(self, trials: "Trials", trial: "optuna.Trial") -> None:
        self._trials = trials
        self._trial = trial
        self.number = trial.number
        self.values = {axis.key: _suggested(trial, axis) for axis in trials.axes}
        self.words = [axis.word(self.values[axis.key]) for axis in trials.axes]

    def report(self, epoch: int, accuracy: float) -> bool:
        """Keep an epoch's `val/acc`; whether the trial is worse than half of those that have finished."""
        if epoch not in self._trials.frozen(self.number).intermediate_values:
            self._trial.report(accuracy, epoch)
        return self._trial.should_prune()

    def end(self, state: str, accuracy: float | None = None, **details: object) -> None:
        """Close the trial.

        Args:
            state: Of its run: finished, pruned, diverged or failed. That settings diverge is found of them, as that
                they are worse than others is; of a failure nothing is.
            accuracy: `val/acc` of its chosen epoch, if it has finished.
            details: What else to keep of it.
        """
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL}
        for name, value in {"state": state, **details}.items():
            if value is not None:
                self._trial.set_user_attr(name, value)
        self._trials.study.tell(self.number, accuracy, states.get(state, TrialState.PRUNED))


class Trials:
    """The trials of a search, of every process that takes part.

    Args:
        folder: Where they are kept.
        axes: What they differ in.
        definition: What makes it this search and no other: what its trials share, in plain values.
        strategy: How it goes.

    Raises:
        ValueError: The folder holds another search, or what it holds cannot be read.
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
        """A trial as it is kept now."""
        return self.study.get_trials(deepcopy=False)[number]

    def retry_failed(self) -> None:
        """Queue the settings of every trial that has failed, once each."""
        from optuna.trial import TrialState

        with guarded(self.folder.journal_file):
            replaced = self._replaced()
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
                if trial.number not in replaced:
                    self.study.enqueue_trial(trial.params, {_REPLACES: trial.number})

    @contextmanager
    def next(self, total: int) -> Iterator[Trial | None]:
        """Hold the next trial, which no other process has: one that is free, else a new one.

        Args:
            total: Of trials, after which there is no new one.

        Yields:
            None where there is neither.
        """
        with ExitStack() as held:
            with guarded(self.folder.journal_file):
                trial = self._free() or self._new(total)
                try:
                    if trial is not None:
                        held.enter_context(locked(self.folder.lock(trial.number)))
                except LockedError:  # its process lives, by a clock other than this host's
                    trial = None
            yield trial

    def _free(self) -> Trial | None:
        import optuna

        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if owner(self.folder.lock(trial.number)) is None:
                self.study.sampler = self._sampler(trial.number)  # it may have been killed before all was drawn
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
        """What draws a trial, with randomness of the trial's own: a search that was interrupted goes on alike."""
        import optuna

        seed = int(np.random.SeedSequence([self.strategy.seed, number]).generate_state(1)[0])
        return optuna.samplers.TPESampler(n_startup_trials=self.strategy.startup, seed=seed)

    def _replaced(self) -> set[int]:
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs[_REPLACES] for trial in trials if _REPLACES in trial.user_attrs}

    def records(self) -> list[TrialRecord]:
        """What is known of each trial, in order; failed ones that another has replaced are left out."""
        replaced = self._replaced()
        return [self._record(trial) for trial in self.study.get_trials(deepcopy=False) if trial.number not in replaced]

    def _record(self, trial: "FrozenTrial") -> TrialRecord:
        told, reports = trial.user_attrs, trial.intermediate_values
        state = told.get("state") if trial.state.is_finished() else None
        if state is None:
            state = "interrupted" if owner(self.folder.lock(trial.number)) is None else "running"
        return TrialRecord(
            number=trial.number,
            values={
                axis.key: axis.word(trial.params[axis.key]).partition("=")[2]
                for axis in self.axes
                if axis.key in trial.params
            },
            state=state,
            accuracy=trial.value if state == "finished" else None,
            reports=dict(sorted(reports.items())),
            folder=told.get("folder"),
            error=told.get("error"),
        )

    def importances(self) -> dict[str, float]:
        """How much each key decides whether a trial is among the best, by PED-ANOVA (arXiv:2304.10255), summing to 1.

        Returns:
            The largest first; empty below five finished trials, or where no two of them differ.
        """
        import optuna

        values = [trial.value for trial in self.study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        if len(values) < _ENOUGH or len(set(values)) == 1:
            return {}
        best = max(_BEST, min(_ENOUGH / len(values), 0.5))  # as it wants five at least to be the best
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        return optuna.importance.get_param_importances(self.study, evaluator=evaluator)


def _suggested(trial: "optuna.Trial", axis: "Axis") -> str | float:
    if axis.choices:
        return trial.suggest_categorical(axis.key, axis.choices)
    if axis.step is not None:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), step=axis.step, log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)
