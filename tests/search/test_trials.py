"""The trials of a search on an objective that takes no time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.search.space import Axis
from cifar_lab.search.storage import SearchFolder
from cifar_lab.search.trials import Strategy, Trial, Trials
from tests.conftest import holds

pytest.importorskip("optuna")

AXES = (Axis("optimizer.lr", low=1e-4, high=1e-2, log=True), Axis("loss", ("ce", "mse")), Axis("at", high=3, step=1))
DEFINITION = {"epochs": 4, "optimizer": {"weight_decay": 0.0}}
STRATEGY = Strategy(startup=3)


@pytest.fixture
def open_trials(tmp_path: Path) -> Callable[..., Trials]:
    """Open the trials in a folder, as a process does."""

    def trials(name: str = "search", strategy: Strategy = STRATEGY, **definition: Any) -> Trials:
        return Trials(SearchFolder(tmp_path / name), AXES, {**DEFINITION, **definition}, strategy)

    return trials


def accuracy(trial: Trial) -> float:
    """Return an accuracy that is highest at a rate of 1e-3 and with cross-entropy."""
    words = dict(word.split("=") for word in trial.words)
    return 0.9 - 10 * abs(float(words["optimizer.lr"]) - 1e-3) - 0.2 * (words["loss"] == "mse")


def run_trials(trials: Trials, total: int, until: int | None = None) -> list[int]:
    """Run the remaining trials, at most `until` of them, and return their numbers."""
    done: list[int] = []
    while until is None or len(done) < until:
        with trials.next(total) as trial:
            if trial is None:
                break
            done.append(trial.number)
            trial.end("finished", accuracy(trial))
    return done


@contextmanager
def hold_next(trials: Trials, total: int) -> Iterator[Trial]:
    """Hold the next trial, which must exist."""
    with trials.next(total) as trial:
        assert trial is not None
        yield trial


def drawn_settings(trials: Trials) -> list[dict[str, str]]:
    return [dict(record.values) for record in trials.records()]


def test_a_stopped_search_resumes_with_the_trials_of_an_undisturbed_one(open_trials: Callable[..., Trials]) -> None:
    whole = open_trials("whole")
    assert run_trials(whole, 12) == list(range(12))
    for start, until in ((0, 2), (2, 5), (7, None)):
        assert run_trials(open_trials("parts"), 12, until)[0] == start
    assert drawn_settings(open_trials("parts")) == drawn_settings(whole)
    assert run_trials(open_trials("parts"), 12) == []
    assert run_trials(open_trials("parts"), 13) == [12]


def test_a_different_sampler_seed_draws_different_trials(open_trials: Callable[..., Trials]) -> None:
    one, other = open_trials("one"), open_trials("other", Strategy(startup=3, seed=1))
    run_trials(one, 3)
    run_trials(other, 3)
    assert drawn_settings(one) != drawn_settings(other)


def test_an_unfinished_trial_is_resumed_first(open_trials: Callable[..., Trials]) -> None:
    killed = open_trials()
    with hold_next(killed, 5) as trial:
        trial.report(1, 0.25)
        words = trial.words
    again = open_trials()
    holds(again.records()[0].description, "interrupted", "epoch 1", "25.00%")
    with hold_next(again, 5) as trial:
        assert (trial.number, trial.words) == (0, words)
        assert not trial.report(1, 0.75)  # the epoch was reported before
        trial.end("finished", 0.5)
    assert again.records()[0].reports == {1: 0.25}
    assert run_trials(again, 5) == [1, 2, 3, 4]


def test_two_processes_never_have_the_same_trial(open_trials: Callable[..., Trials]) -> None:
    one, other = open_trials(), open_trials()
    with hold_next(one, 3) as first, hold_next(other, 3) as second, hold_next(one, 3) as third, other.next(3) as none:
        assert [first.number, second.number, third.number] == [0, 1, 2]
        assert none is None
        assert {record.state for record in other.records()} == {"running"}


def test_a_failed_trial_is_retried_once_by_the_next_command(open_trials: Callable[..., Trials]) -> None:
    trials = open_trials()
    with hold_next(trials, 2) as trial:
        words = trial.words
        trial.end("failed", error="out of memory")
    assert run_trials(trials, 2) == [1]
    failed, finished = trials.records()
    holds(failed.description, "failed", "out of memory")
    assert finished.description == "finished"
    open_trials().retry_failed()
    trials.retry_failed()
    with hold_next(trials, 2) as trial:
        assert trial.words == words
        trial.end("finished", 0.5)
    assert [record.number for record in trials.records()] == [1, 2]
    assert run_trials(trials, 2) == []


def test_a_trial_is_pruned_if_half_of_the_finished_ones_were_better(open_trials: Callable[..., Trials]) -> None:
    trials = open_trials(strategy=Strategy(startup=3, warmup_epochs=2))
    for curve in ((0.1, 0.4, 0.6), (0.2, 0.5, 0.7), (0.3, 0.6, 0.8)):
        with hold_next(trials, 9) as trial:
            assert not any(trial.report(epoch, value) for epoch, value in enumerate(curve, 1))
            trial.end("finished", curve[-1])
    with hold_next(trials, 9) as trial:
        assert not trial.report(1, 0.0)
        assert trial.report(2, 0.45)
        trial.end("pruned")
    with hold_next(trials, 9) as trial:
        assert not trial.report(2, 0.55)
        trial.end("diverged", error=(error := "the loss is nan in step 9"))
    pruned, diverged = trials.records()[3:]
    holds(pruned.description, "pruned", "epoch 2", "45.00%")
    assert (pruned.accuracy, diverged.accuracy) == (None, None)
    holds(diverged.description, "diverged", error)


def test_without_pruning_the_worst_trial_continues(open_trials: Callable[..., Trials]) -> None:
    trials = open_trials(strategy=Strategy(startup=1, pruning=False))
    for value in (0.9, 0.1):
        with hold_next(trials, 2) as trial:
            assert not trial.report(1, value)
            trial.end("finished", value)


def test_a_different_search_in_the_same_folder_is_refused_with_the_difference(
    open_trials: Callable[..., Trials],
) -> None:
    open_trials()
    with pytest.raises(ValueError, match=r"\bepochs \(4.* 5.*\).* name="):
        open_trials(epochs=5)
    with pytest.raises(ValueError, match=r"strategy\.startup \(3.* 4.*\)"):
        open_trials(strategy=Strategy(startup=4))


def test_a_journal_line_cut_by_a_full_disk_is_ignored(open_trials: Callable[..., Trials]) -> None:
    trials = open_trials()
    run_trials(trials, 2)
    before = drawn_settings(trials)
    with trials.folder.journal_file.open("a") as file:
        file.write('{"op_code":4,"worker')
    again = open_trials()
    assert drawn_settings(again) == before
    assert run_trials(again, 4) == [2, 3]
    assert len(open_trials().records()) == 4


def test_a_damaged_journal_is_named_with_the_remedy(open_trials: Callable[..., Trials]) -> None:
    journal = open_trials().folder.journal_file
    journal.write_text("no journal\n" + journal.read_text())
    with pytest.raises(ValueError, match=r"trials\.journal") as error:
        open_trials()
    assert "\n" not in str(error.value)


def test_the_decisive_setting_has_the_highest_importance(open_trials: Callable[..., Trials]) -> None:
    trials = open_trials(strategy=Strategy(startup=40))
    run_trials(trials, 4)
    assert trials.importances() == {}
    run_trials(trials, 40)
    found = trials.importances()
    assert sum(found.values()) == pytest.approx(1)
    assert list(found)[-1] == "at"  # nothing depends on it
