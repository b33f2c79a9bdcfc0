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
def opened(tmp_path: Path) -> Callable[..., Trials]:
    """Open the trials in a folder, as a process does."""

    def trials(name: str = "search", strategy: Strategy = STRATEGY, **definition: Any) -> Trials:
        return Trials(SearchFolder(tmp_path / name), AXES, {**DEFINITION, **definition}, strategy)

    return trials


def accuracy(trial: Trial) -> float:
    """Return an accuracy that is highest at a rate of 1e-3 and with cross-entropy."""
    words = dict(word.split("=") for word in trial.words)
    return 0.9 - 10 * abs(float(words["optimizer.lr"]) - 1e-3) - 0.2 * (words["loss"] == "mse")


def work(trials: Trials, total: int, until: int | None = None) -> list[int]:
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
def held(trials: Trials, total: int) -> Iterator[Trial]:
    """Hold the next trial, which must exist."""
    with trials.next(total) as trial:
        assert trial is not None
        yield trial


def drawn(trials: Trials) -> list[dict[str, str]]:
    return [dict(record.values) for record in trials.records()]


def test_a_stopped_search_resumes_with_the_trials_of_an_undisturbed_one(opened: Callable[..., Trials]) -> None:
    whole = opened("whole")
    assert work(whole, 12) == list(range(12))
    for start, until in ((0, 2), (2, 5), (7, None)):
        assert work(opened("parts"), 12, until)[0] == start
    assert drawn(opened("parts")) == drawn(whole)
    assert work(opened("parts"), 12) == []
    assert work(opened("parts"), 13) == [12]


def test_a_different_sampler_seed_draws_different_trials(opened: Callable[..., Trials]) -> None:
    one, other = opened("one"), opened("other", Strategy(startup=3, seed=1))
    work(one, 3)
    work(other, 3)
    assert drawn(one) != drawn(other)


def test_an_unfinished_trial_is_resumed_first(opened: Callable[..., Trials]) -> None:
    killed = opened()
    with held(killed, 5) as trial:
        trial.report(1, 0.25)
        words = trial.words
    again = opened()
    holds(again.records()[0].description, "interrupted", "epoch 1", "25.00%")
    with held(again, 5) as trial:
        assert (trial.number, trial.words) == (0, words)
        assert not trial.report(1, 0.75)  # the epoch was reported before
        trial.end("finished", 0.5)
    assert again.records()[0].reports == {1: 0.25}
    assert work(again, 5) == [1, 2, 3, 4]


def test_two_processes_never_have_the_same_trial(opened: Callable[..., Trials]) -> None:
    one, other = opened(), opened()
    with held(one, 3) as first, held(other, 3) as second, held(one, 3) as third, other.next(3) as none:
        assert [first.number, second.number, third.number] == [0, 1, 2]
        assert none is None
        assert {record.state for record in other.records()} == {"running"}


def test_a_failed_trial_is_retried_once_by_the_next_command(opened: Callable[..., Trials]) -> None:
    trials = opened()
    with held(trials, 2) as trial:
        words = trial.words
        trial.end("failed", error="out of memory")
    assert work(trials, 2) == [1]
    failed, finished = trials.records()
    holds(failed.description, "failed", "out of memory")
    assert finished.description == "finished"
    opened().retry_failed()
    trials.retry_failed()
    with held(trials, 2) as trial:
        assert trial.words == words
        trial.end("finished", 0.5)
    assert [record.number for record in trials.records()] == [1, 2]
    assert work(trials, 2) == []


def test_a_trial_is_pruned_if_half_of_the_finished_ones_were_better(opened: Callable[..., Trials]) -> None:
    trials = opened(strategy=Strategy(startup=3, warmup_epochs=2))
    for curve in ((0.1, 0.4, 0.6), (0.2, 0.5, 0.7), (0.3, 0.6, 0.8)):
        with held(trials, 9) as trial:
            assert not any(trial.report(epoch, value) for epoch, value in enumerate(curve, 1))
            trial.end("finished", curve[-1])
    with held(trials, 9) as trial:
        assert not trial.report(1, 0.0)
        assert trial.report(2, 0.45)
        trial.end("pruned")
    with held(trials, 9) as trial:
        assert not trial.report(2, 0.55)
        trial.end("diverged", error=(error := "the loss is nan in step 9"))
    pruned, diverged = trials.records()[3:]
    holds(pruned.description, "pruned", "epoch 2", "45.00%")
    assert (pruned.accuracy, diverged.accuracy) == (None, None)
    holds(diverged.description, "diverged", error)


def test_without_pruning_the_worst_trial_continues(opened: Callable[..., Trials]) -> None:
    trials = opened(strategy=Strategy(startup=1, pruning=False))
    for value in (0.9, 0.1):
        with held(trials, 2) as trial:
            assert not trial.report(1, value)
            trial.end("finished", value)


def test_a_different_search_in_the_same_folder_is_refused_with_the_difference(opened: Callable[..., Trials]) -> None:
    opened()
    with pytest.raises(ValueError, match=r"\bepochs \(4.* 5.*\).* name="):
        opened(epochs=5)
    with pytest.raises(ValueError, match=r"strategy\.startup \(3.* 4.*\)"):
        opened(strategy=Strategy(startup=4))


def test_a_journal_line_cut_by_a_full_disk_is_ignored(opened: Callable[..., Trials]) -> None:
    trials = opened()
    work(trials, 2)
    before = drawn(trials)
    with trials.folder.journal_file.open("a") as file:
        file.write('{"op_code":4,"worker')
    again = opened()
    assert drawn(again) == before
    assert work(again, 4) == [2, 3]
    assert len(opened().records()) == 4


def test_a_damaged_journal_is_named_with_the_remedy(opened: Callable[..., Trials]) -> None:
    journal = opened().folder.journal_file
    journal.write_text("no journal\n" + journal.read_text())
    with pytest.raises(ValueError, match=r"trials\.journal") as error:
        opened()
    assert "\n" not in str(error.value)


def test_the_decisive_setting_has_the_highest_importance(opened: Callable[..., Trials]) -> None:
    trials = opened(strategy=Strategy(startup=40))
    work(trials, 4)
    assert trials.importances() == {}
    work(trials, 40)
    found = trials.importances()
    assert sum(found.values()) == pytest.approx(1)
    assert list(found)[-1] == "at"  # nothing depends on it
