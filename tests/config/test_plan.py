"""What a command line is checked for beyond each of its values: pairs of them, and faults of the check itself."""

from typing import Any

import pytest

from cifar_lab.config import checked, combinations, preflight
from cifar_lab.config.axes import contradictions
from tests.conftest import TINY, Lab, Outcome, refusal

PLAIN = [word for word in TINY if not word.startswith("epochs=")]


def test_a_sweep_with_a_pair_that_cannot_run_is_refused_before_it_begins(lab: Lab) -> None:
    outcome: Outcome = lab("-m", *PLAIN, "averaging=none,swa", "epochs=10,2")
    refusal(outcome, "averaging.start", "2 epochs")
    assert not outcome.runs


def test_an_option_that_replaces_what_another_sets_is_no_contradiction() -> None:
    plan = checked(["-m", *PLAIN, "optimizer=sgd,adam", "seed=0,1"])
    assert len(plan.jobs) == 4


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The configurations whose pairs were checked; where `b` and `c` are 2 they contradict each other."""

    def check_together(config: dict[str, Any]) -> None:
        configurations.append(config)
        if config.get("b") == config.get("c") == 2:
            raise ValueError

    configurations: list[dict[str, Any]] = []
    monkeypatch.setattr(combinations, "check_together", check_together)
    return configurations


def test_each_pair_is_looked_at_and_those_alone_are_composed(looked_at: list[dict[str, Any]]) -> None:
    axes = [["a=1", "a=2"], ["b=1", "b=2"], ["c=1", "c=2"]]
    base = {"a": 1, "b": 1}
    plain: dict[tuple[str, ...], dict[str, Any]] = {
        ("a=1", "b=1", "c=1"): base,
        ("a=2", "b=1", "c=1"): {"a": 2, "b": 1},
        ("a=1", "b=2", "c=1"): {"a": 1, "b": 2},
        ("a=1", "b=1", "c=2"): {**base, "c": 2},
    }
    assert list(contradictions(axes, plain)) == [["a=1", "b=2", "c=2"]]
    assert [tuple(map(config.get, "abc")) for config in looked_at] == [(2, 2, None), (2, 1, 2), (1, 2, 2)]


def test_a_value_inside_a_group_that_another_value_takes_away_is_put_together_with_it(
    looked_at: list[dict[str, Any]],
) -> None:
    base = {"g": {"h": {"x": 1}}}
    plain: dict[tuple[str, ...], dict[str, Any]] = {
        ("g=a", "x=1"): base,
        ("g=b", "x=1"): {"g": None},
        ("g=a", "x=2"): {"g": {"h": {"x": 2}}},
    }
    assert not list(contradictions([["g=a", "g=b"], ["x=1", "x=2"]], plain))
    assert looked_at == [{"g": {"h": {"x": 2}}}]
    assert base == {"g": {"h": {"x": 1}}}


@pytest.mark.slow
def test_the_check_of_ten_thousand_jobs_composes_each_value_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    compose = preflight.compose

    def counted(name: str, words: list[str], **options: Any) -> Any:
        composed.append(words)
        return compose(name, words, **options)

    monkeypatch.setattr(preflight, "compose", counted)
    rates = ",".join(f"{number}e-4" for number in range(1, 11))
    plan = checked(["-m", *PLAIN, f"optimizer.lr={rates}", "seed=range(0,100)", "epochs=1,2,3,4,5,6,7,8,9,10"])
    assert len(plan.jobs) == 10_000
    assert len(composed) == 1 + 9 + 1 + 9


def test_a_bug_in_the_check_is_a_traceback_and_exit_1(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: dict[str, Any]) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(combinations, "check_together", broken)
    outcome: Outcome = lab(*TINY)
    assert (outcome.code, outcome.stdout, outcome.runs) == (1, "", [])
    assert "KeyError" in outcome.stderr and "CONTRIBUTING.md" in outcome.stderr.splitlines()[-1]
