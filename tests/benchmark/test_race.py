"""Loops that take turns, each in its own process."""

import multiprocessing
from contextlib import chdir
from multiprocessing import forkserver

import pytest

from cifar_lab.benchmark import budget
from cifar_lab.benchmark import race as race_module
from cifar_lab.benchmark.budget import Budget
from cifar_lab.benchmark.race import CHECK_STEPS, Contest, race
from tests.conftest import CHECKOUT

WORDS = ("model.filters=[2,2,2]", "trainer=cpu")


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork processes from a server that has imported everything."""
    monkeypatch.setattr(budget, "MOST_STEPS", 4)
    monkeypatch.setattr(race_module, "MOST_STEPS", 4)
    get_context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: get_context("forkserver"))
    multiprocessing.set_forkserver_preload(["tests.preloaded"])
    with chdir(CHECKOUT):  # where the server finds `tests`
        forkserver.ensure_running()


def test_a_loop_that_cannot_run_is_named(forks: None) -> None:
    with pytest.raises(ValueError, match=r"plain: .*\b2\b"):
        race(Contest(("model.filters=[2,2]",), batch_size=8, loops=("plain",), rounds=1), Budget(60, 1))


def test_processes_take_turns_and_exit(forks: None) -> None:
    contest = Contest(WORDS, batch_size=8, loops=("plain", "best"), rounds=2, seconds=0.01)
    for measured in race(contest, Budget(600, 1)):
        assert len(measured.seconds_per_step) == 2
        assert min(measured.seconds_per_step) > 0
        assert len(measured.losses) == CHECK_STEPS
        assert measured.memory_bytes > 0
        assert sum(measured.phases.values()) == pytest.approx(1)
    assert not multiprocessing.active_children()
