"""Checks of a command line beyond each value: the jobs of a sweep, and faults of the check itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.config import checked, combinations, preflight
from cifar_lab.config.axes import suspects
from tests.conftest import TINY, Lab, Outcome, refusal

PLAIN = [word for word in TINY if not word.startswith("epochs=")]


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("averaging=none,swa epochs=10,2", ("averaging.start", "2 epochs", "(in the job averaging=swa epochs=2)")),
        ("seed=0,1 optimizer=sgd,adam optimizer.nesterov=true", ("nesterov", "(in the job seed=0 optimizer=adam)")),
        (
            "optimizer=sgd optimizer.momentum=0.9,0 optimizer.nesterov=false,true",
            ("(in the job optimizer.momentum=0 ",),
        ),
        (
            "scheduler=cosine,one_cycle scheduler.pct_start=0.3,1",
            ("scheduler.pct_start", "(in the job scheduler=cosine "),
        ),
        ("loss=focal,ce loss.gamma=1", ("loss.gamma", "(in the job loss=ce)")),
        ("seed=0,1 model.filters=[4,4,4],[4,4]", ("model.filters=[4, 4]", "three", "model.filters=[4,4])")),
        ("model=resnet14 model.blocks=[1,1],[1] model.widths=[4,4],[4]", ("model.blocks=[1] model.widths=[4, 4]",)),
        ("model=vgg_a model.stages=[[4]],[[4],[]]", ("model.stages=[[4], []]",)),
        # each option takes only one of the two values
        ("model=vgg_a,cnn model.dropout=0.1,null", ("model.dropout=None", "(in the job model=cnn model.dropout=null)")),
        # only one of the two schedules sets the typed momentum
        ("seed=0 optimizer=sgd optimizer.momentum=0.9 scheduler=step,one_cycle", ("(in the job scheduler=one_cycle)",)),
        # only the three together conflict
        (
            "compile=true,false cuda_graphs=false,true trainer.accelerator=gpu,cpu",
            ("(in the job compile=True cuda_graphs=True trainer.accelerator=cpu)",),
        ),
    ],
)
def test_a_sweep_with_an_impossible_job_is_refused_before_it_begins(
    lab: Lab, line: str, facts: tuple[str, ...]
) -> None:
    data = [word for word in PLAIN if not word.startswith("model.")]
    outcome: Outcome = lab("-m", *data, *line.split())
    refusal(outcome, *facts)
    assert not list(Path().iterdir())


def test_an_option_that_replaces_a_setting_of_a_different_option_is_accepted() -> None:
    plan = checked(["-m", *PLAIN, "optimizer=sgd,adam", "seed=0,1"])
    assert len(plan.jobs) == 4


@pytest.fixture
def composed_jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that the check has composed."""
    composed: list[list[str]] = []
    compose = preflight.compose

    def counted(name: str, words: list[str], **options: Any) -> Any:
        composed.append(words)
        return compose(name, words, **options)

    monkeypatch.setattr(preflight, "compose", counted)
    return composed


def test_a_value_that_follows_a_different_axis_does_not_cause_its_jobs_to_be_composed(
    composed_jobs: list[list[str]],
) -> None:
    # The epochs of the average follow `epochs`: those of ten epochs would leave none of five to average.
    plan = checked(["-m", *PLAIN, "averaging=none,swa", "epochs=10,5"])
    assert (len(plan.jobs), len(composed_jobs)) == (4, 3)


def _refusing_twos(looked_at: list[Any]) -> Callable[[dict[str, Any]], None]:
    def check(config: dict[str, Any]) -> None:
        looked_at.append(config)
        if config.get("b") == config.get("c") == 2:
            raise ValueError

    return check


def test_each_job_is_checked_and_only_refused_jobs_are_composed() -> None:
    axes = [["a=1", "a=2"], ["b=1", "b=2"], ["c=1", "c=2"]]
    base = {"a": 1, "b": 1}
    plain: dict[tuple[str, ...], dict[str, Any]] = {
        ("a=1", "b=1", "c=1"): base,
        ("a=2", "b=1", "c=1"): {"a": 2, "b": 1},
        ("a=1", "b=2", "c=1"): {"a": 1, "b": 2},
        ("a=1", "b=1", "c=2"): {**base, "c": 2},
    }
    looked_at: list[dict[str, Any]] = []
    assert list(suspects(axes, plain, _refusing_twos(looked_at))) == [["a=1", "b=2", "c=2"], ["a=2", "b=2", "c=2"]]
    assert [tuple(map(config.get, "abc")) for config in looked_at] == [(1, 2, 2), (2, 1, 2), (2, 2, None), (2, 2, 2)]


def test_a_value_inside_a_group_is_combined_with_a_value_that_replaces_the_group() -> None:
    base = {"g": {"h": {"x": 1}}}
    plain: dict[tuple[str, ...], dict[str, Any]] = {
        ("g=a", "x=1"): base,
        ("g=b", "x=1"): {"g": None},
        ("g=a", "x=2"): {"g": {"h": {"x": 2}}},
    }
    looked_at: list[dict[str, Any]] = []
    assert not list(suspects([["g=a", "g=b"], ["x=1", "x=2"]], plain, looked_at.append))
    assert looked_at == [{"g": {"h": {"x": 2}}}]
    assert base == {"g": {"h": {"x": 1}}}


@pytest.mark.slow
def test_the_check_of_ten_thousand_jobs_composes_each_value_once(composed_jobs: list[list[str]]) -> None:
    rates = ",".join(f"{number}e-4" for number in range(1, 11))
    plan = checked(["-m", *PLAIN, f"optimizer.lr={rates}", "seed=range(0,100)", "epochs=1,2,3,4,5,6,7,8,9,10"])
    assert len(plan.jobs) == 10_000
    assert len(composed_jobs) == 1 + 9 + 1 + 9


def test_a_bug_in_the_check_gives_a_traceback_and_exit_code_1(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: dict[str, Any]) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(combinations, "check_together", broken)
    outcome: Outcome = lab(*TINY)
    assert (outcome.code, outcome.stdout, outcome.runs) == (1, "", [])
    assert "KeyError" in outcome.stderr and "CONTRIBUTING.md" in outcome.stderr.splitlines()[-1]
