"""How a benchmark's time is shared among networks and turns."""

import time

import pytest

from cifar_lab.benchmark import budget as module
from cifar_lab.benchmark.budget import Budget, Turns, check_steps, fitting


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_later_networks_share_the_remaining_time(now: list[float]) -> None:
    budget = Budget(100, parts=3)  # a tenth of which is kept back
    budget.begin("a")
    assert budget.left() == pytest.approx(30)
    now[0] = 10
    budget.begin("b")
    assert budget.left() == pytest.approx(40)
    now[0] = 60
    budget.begin("c")
    assert budget.left() == pytest.approx(30)


def test_a_line_reports_the_remaining_time_at_intervals(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    budget = Budget(600, parts=1)
    budget.begin("cnn")
    for now[0] in (0, 1, 19, 21):
        budget.say(f"round {now[0]}")
    assert capsys.readouterr().err.splitlines() == [
        "cnn: round 0, at most 9:00 left",
        "cnn: round 21, at most 8:39 left",
    ]


def test_slow_networks_get_shorter_turns_and_then_fewer() -> None:
    assert fitting([0.1, 0.1], [1, 5], rounds=7, seconds=1.5, left=600) == Turns(7, 15, True)
    # Eight rounds in 16.8 s take 2.1 s each, of which 0.6 s are not timed.
    assert fitting([0.1, 0.1], [1, 5], rounds=7, seconds=1.5, left=16.8) == Turns(7, 7, True)
    # A round of one step takes 8 s, plus one that times the parts of a step.
    assert fitting([3.0, 5.0], [1, 5], rounds=7, seconds=1.5, left=40) == Turns(4, 1, False)
    assert fitting([3.0, 5.0], [1, 5], rounds=7, seconds=1.5, left=-1) == Turns(1, 1, False)
    assert fitting([1e-4, 1e-4], [1, 5], rounds=7, seconds=1.5, left=600).steps == module.MOST_STEPS


def test_a_check_takes_at_most_a_quarter_of_the_time() -> None:
    assert check_steps([0.1] * 4, 8, left=200) == 8
    assert check_steps([3.0] * 4, 8, left=192) == 4
    assert check_steps([60.0] * 4, 8, left=200) == 2
