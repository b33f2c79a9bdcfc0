"""`python -m cifar_lab.search`: its trials are ordinary runs."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cifar_lab import search, status, table, train
from cifar_lab.fingerprints import fingerprint
from cifar_lab.runs import Run, find_runs
from cifar_lab.searching import Trial
from tests.conftest import TINY

pytest.importorskip("optuna")

Command = Callable[..., tuple[int, str, str]]
LINE = ("optimizer.lr=tag(log,interval(1e-4,1e-2))", *TINY, "logger=none", "name=found")


@pytest.fixture
def command(called: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `python -m cifar_lab.search` with arguments, in an empty folder and in this process."""
    monkeypatch.chdir(tmp_path)
    return partial(called, search.main)


@pytest.fixture
def _second_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Trial.report

    def report(trial: Trial, epoch: int, accuracy: float) -> bool:
        return keep(trial, epoch, accuracy) or trial.number == 1

    monkeypatch.setattr(Trial, "report", report)


@pytest.mark.usefixtures("_second_is_pruned")
def test_a_search_trains_its_trials_prunes_and_is_not_trained_again(command: Command, called: Command) -> None:
    code, out, err = command(*LINE, "--trials", 3)
    assert (code, err) == (0, "")
    frame = pd.read_csv("outputs/found/search.csv")
    assert frame["state"].tolist() == ["finished", "pruned", "finished"]
    assert frame["epochs"].tolist() == [2, 1, 2]
    runs = [Run(Path("outputs/found", folder)) for folder in frame["folder"]]
    assert [run.state() for run in runs] == ["finished", "pruned", "finished"]
    assert [run.result()["val/acc"] for run in (runs[0], runs[2])] == frame["val/acc"].dropna().tolist()
    assert len(runs[1].metrics()) == 1
    assert not runs[1].error_file.exists()
    assert "trial 1: pruned at epoch 1" in out
    assert "optimizer.lr=" in out.partition("over seeds that chose nothing: python -m cifar_lab.train -m")[2]

    metrics = [run.metrics_file.read_text() for run in runs]
    assert command(*LINE, "--trials", 3)[0] == 0
    Path("outputs/found/trials.journal").unlink()
    assert command(*LINE, "--trials", 3)[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv("outputs/found/search.csv"), frame)
    assert [run.metrics_file.read_text() for run in runs] == metrics

    listed = called(status.main, "outputs")[1]
    assert "pruned" in listed
    assert called(table.main, "outputs/found")[0] == 0
    told = pd.read_csv("outputs/found/table.csv").set_index("state")
    assert told.loc["pruned, epoch 1 of 2", "finished"] == 0

    lines = [line for line in runs[1].overrides() if not line.startswith("hydra")]
    result = train.run([*lines, f"resume={runs[1].folder}"])
    assert (result["status"], result["epochs"]) == ("finished", 2)


def test_a_trial_is_the_run_that_its_settings_are(command: Command) -> None:
    assert command(*LINE, "--trials", 1)[0] == 0
    (run,) = find_runs("outputs/found")
    lines = [line for line in run.overrides() if not line.startswith("name=")]
    own = train.run([*lines, "hydra.run.dir=alone"])
    assert own["fingerprint"] == run.result()["fingerprint"] == fingerprint(run.config())
    assert {name: own[name] for name in ("val/acc", "test/acc")} == {
        name: run.result()[name] for name in ("val/acc", "test/acc")
    }


def test_settings_that_are_drawn_twice_are_trained_once(command: Command) -> None:
    code, out, _ = command("loss=ce,mse", *TINY, "logger=none", "name=found", "--trials", 4)
    assert code == 0
    assert len(list(find_runs("outputs/found"))) == 2
    frame = pd.read_csv("outputs/found/search.csv")
    assert frame.groupby("loss")["val/acc"].nunique().tolist() == [1, 1]
    assert frame["epochs"].tolist() == [2] * 4
    assert out.count("epoch 1/2") == 2


def test_a_trial_that_fails_is_told_and_trained_again_by_the_same_command(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train.trained

    def broken(*arguments: Any) -> dict[str, Any]:
        monkeypatch.setattr(train, "trained", trained)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(train, "trained", broken)
    code, _, err = command(*LINE, "--trials", 2)
    assert code == 1
    assert err.splitlines()[-1] == "error: failed: trial 0; the same command trains them again"
    assert pd.read_csv("outputs/found/search.csv")["state"].tolist() == ["failed", "finished"]
    assert command(*LINE, "--trials", 2)[0] == 0
    assert pd.read_csv("outputs/found/search.csv")["state"].tolist() == ["finished", "finished"]
    assert len(list(find_runs("outputs/found"))) == 2


def test_settings_that_diverge_are_found_bad_and_end_no_search(command: Command) -> None:
    rates = "optimizer.lr=1e-3,1e30"
    code, out, _ = command(rates, *TINY, "logger=none", "name=found", "grad_clip=0", "bn=false", "--trials", 4)
    assert code == 0
    states = pd.read_csv("outputs/found/search.csv").groupby("optimizer.lr")["state"].unique()
    assert states[1e-3].tolist() == ["finished"]
    assert states[1e30].tolist() == ["diverged"]
    assert "best: trial" in out


def test_signals_end_it_with_its_table_and_the_same_command_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*LINE, "--trials", 2)[0] == 0
    undisturbed = Path("outputs/found/search.csv").read_text()
    os.rename("outputs/found", "outputs/undisturbed")
    keep = Trial.report

    due = {0: signal.SIGINT, 1: signal.SIGTERM}

    def report(trial: Trial, epoch: int, accuracy: float) -> bool:
        if trial.number in due:
            os.kill(os.getpid(), due.pop(trial.number))
        return keep(trial, epoch, accuracy)

    monkeypatch.setattr(Trial, "report", report)
    for name, code, states in (("SIGINT", 130, ["interrupted"]), ("SIGTERM", 143, ["finished", "interrupted"])):
        ended, _, err = command(*LINE, "--trials", 2)
        assert (ended, err) == (code, f"error: interrupted by {name}; the same command goes on where it stopped\n")
        assert pd.read_csv("outputs/found/search.csv")["state"].tolist() == states
    assert command(*LINE, "--trials", 2)[0] == 0
    assert Path("outputs/found/search.csv").read_text() == undisturbed


def test_another_search_of_the_same_name_is_refused(command: Command) -> None:
    assert command(*LINE, "--trials", 1)[0] == 0
    code, _, err = command(*LINE, "epochs=1", "--trials", 1)
    assert code == 2
    assert "settings.epochs (2 there, 1 here)" in err
    assert err.endswith("name= gives this one a folder of its own\n")


def test_without_optuna_one_line_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.searching.storage.importlib.util.find_spec", lambda name: None)
    code, _, err = command(*LINE)
    assert (code, err) == (2, "error: a search needs optuna, which is not installed: pip install 'cifar-lab[search]'\n")
    assert not Path("outputs").exists()


@pytest.mark.parametrize("option", [("--trials", 0), ("--warmup", 2), ("--sampler-seed", -1), ("--trails", 3)])
def test_an_option_that_cannot_be_is_refused(command: Command, option: tuple[str, int]) -> None:
    code, _, err = command(*LINE, *option)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
