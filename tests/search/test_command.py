"""`python -m cifar_lab.search`: trials are ordinary runs."""

import os
import shutil
import signal
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from cifar_lab import search, status, table, train
from cifar_lab.runs import Run, find_runs
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.search import command as search_command
from cifar_lab.search.trials import Trial
from cifar_lab.train import fitting
from tests.conftest import TINY, Called, names, quick, refusal

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("empty_folder")

SHORT = (*TINY, "epochs=1", "logger=none", "name=found")
LINE = ("optimizer.lr=tag(log,interval(1e-4,1e-2))", *TINY, "logger=none", "name=found")
FOLDER, TABLE = Path("outputs/found"), Path("outputs/found/search.csv")


class FinishedSearch(NamedTuple):
    """A finished search of three trials, the last one pruned, and its output."""

    code: int
    folder: Path
    printed: str


@pytest.fixture(scope="module")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> FinishedSearch:
    place, keep = tmp_path_factory.mktemp("searched"), Trial.report
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        quick(patch)
        patch.chdir(place)
        patch.setattr(Trial, "report", lambda trial, *told: keep(trial, *told) or trial.number == 2)
        code = search_command.search(list(LINE), trials=3)
    return FinishedSearch(code, place / FOLDER, printed.getvalue())


@pytest.fixture
def again(empty_folder: None, called: Called, finished_search: FinishedSearch) -> Called:
    """Call a command in a folder that contains the finished search."""
    shutil.copytree(finished_search.folder, FOLDER)
    return called


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry per training of a run."""
    done: list[object] = []
    trained = fitting.trained

    def counted(work: Any) -> dict[str, Any]:
        done.append(work)
        return trained(work)

    monkeypatch.setattr(fitting, "trained", counted)
    return done


def test_a_search_trains_its_trials_and_prunes(finished_search: FinishedSearch) -> None:
    assert finished_search.code == 0
    frame = pd.read_csv(finished_search.folder / "search.csv")
    assert frame["state"].tolist() == ["finished", "finished", "pruned"]
    assert frame["epochs"].tolist() == [2, 2, 1]
    runs = [Run(finished_search.folder / folder) for folder in frame["folder"]]
    assert [run.state() for run in runs] == ["finished", "finished", "pruned"]
    assert [run.result()["val/acc"] for run in runs[:2]] == frame["val/acc"].dropna().tolist()
    assert len(runs[2].metrics()) == 1
    assert not runs[2].error_file.exists()
    (over_seeds,) = [line for line in finished_search.printed.splitlines() if "cifar_lab.train -m" in line]
    assert "optimizer.lr=" in over_seeds


def test_trained_trials_are_not_trained_again(again: Called, trainings: list[object]) -> None:
    frame = pd.read_csv(TABLE)
    assert again(search.main, *LINE, "--trials", 3)[0] == 0
    Path("outputs/found/trials.journal").unlink()
    assert again(search.main, *LINE, "--trials", 1)[0] == 0
    found, known = (each[:1].dropna(axis=1) for each in (pd.read_csv(TABLE), frame))
    pd.testing.assert_frame_equal(found, known, check_dtype=False)
    assert not trainings


def test_trials_under_a_former_default_name_are_found_but_not_those_of_a_different_search(
    called: Called, finished_search: FinishedSearch, trainings: list[object]
) -> None:
    unnamed = [word for word in LINE if not word.startswith("name=")]
    shutil.copytree(finished_search.folder, "outputs/search-optimizer.lr")
    assert called(search.main, *unnamed, "--trials", 3)[0] == 0
    assert not trainings and len(list(Path("outputs").iterdir())) == 1
    assert called(search.main, *unnamed, "epochs=1", "--trials", 1)[0] == 0
    assert len(trainings) == 1 and len(list(Path("outputs").glob("search-optimizer.lr-*epochs=1*"))) == 1


def test_a_pruned_trial_is_listed_and_compared_as_pruned_and_can_be_completed(again: Called, called: Called) -> None:
    assert "pruned" in called(status.main, "outputs")[1]
    assert called(table.main, FOLDER)[0] == 0
    (row,) = [line for _, line in pd.read_csv(FOLDER / "table.csv").iterrows() if "pruned" in line["state"]]
    assert (row["finished"], "1 of 2" in row["state"]) == (0, True)
    (run,) = [run for run in find_runs(FOLDER) if run.state() == "pruned"]
    result = train.run([*(line for line in run.overrides() if not line.startswith("hydra")), f"resume={run.folder}"])
    assert (result["status"], result["epochs"]) == ("finished", 2)


def test_a_trial_is_the_run_of_its_settings(again: Called) -> None:
    run = next(run for run in find_runs(FOLDER) if run.has_result())
    result = run.result()
    own = train.run([*(line for line in run.overrides() if not line.startswith("name=")), "hydra.run.dir=alone"])
    assert own["fingerprint"] == result["fingerprint"] == fingerprint(run.config())
    assert [own[name] for name in ("val/acc", "test/acc")] == [result[name] for name in ("val/acc", "test/acc")]


def test_a_different_search_of_the_same_name_is_refused(again: Called) -> None:
    refusal(again(search.main, *LINE, "epochs=1", "--trials", 1), "settings.epochs", "name=")


def test_settings_drawn_twice_are_trained_once_and_diverging_ones_do_not_end_the_search(
    called: Called, trainings: list[object]
) -> None:
    assert called(search.main, "optimizer.lr=1e-3,1e30", *SHORT, "grad_clip=0", "bn=false", "--trials", 4)[0] == 0
    assert len(trainings) == 2
    assert {run.state() for run in find_runs(FOLDER)} == {"finished", "diverged"}
    frame = pd.read_csv(TABLE)
    assert len(frame) == 4
    finished, diverged = (frame[frame["optimizer.lr"] == rate] for rate in (1e-3, 1e30))
    assert (set(finished["state"]), set(finished["epochs"]), finished["val/acc"].nunique()) == ({"finished"}, {1}, 1)
    assert set(diverged["state"]) == {"diverged"}


def test_after_a_failure_and_after_a_signal_the_same_command_resumes_the_search(
    called: Called, finished_search: FinishedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (*LINE, "--trials", 1)
    with monkeypatch.context() as broken:

        def fails(*_: object) -> None:
            raise RuntimeError("memory")

        broken.setattr(fitting, "trained", fails)
        code, _, err = called(search.main, *line)
    assert code == 1
    names(err.splitlines()[-1], "trial 0")
    assert pd.read_csv(TABLE)["state"].tolist() == ["failed"]

    keep, due = Trial.report, [signal.SIGTERM]

    def report(trial: Trial, epoch: int, accuracy: float) -> bool:
        if due:
            os.kill(os.getpid(), due.pop())
        return keep(trial, epoch, accuracy)

    monkeypatch.setattr(Trial, "report", report)
    code, _, err = called(search.main, *line)
    assert code == 143
    names(err, "SIGTERM")
    assert pd.read_csv(TABLE)["state"].tolist() == ["interrupted"]

    assert called(search.main, *line)[0] == 0
    resumed, undisturbed = (
        pd.read_csv(path)[:1].dropna(axis=1).drop(columns="trial")  # a retried trial has a new number
        for path in (TABLE, finished_search.folder / "search.csv")
    )
    pd.testing.assert_frame_equal(resumed, undisturbed, check_dtype=False)
    assert len(list(find_runs(FOLDER))) == 1


def test_without_optuna_the_error_names_the_extra_to_install(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.search.storage.importlib.util.find_spec", lambda name: None)
    refusal(called(search.main, *LINE), "optuna", "pip install 'cifar-lab[search]'")
    assert not Path("outputs").exists()


@pytest.mark.parametrize("option", [("--trials", 0), ("--warmup", 2), ("--sampler-seed", -1), ("--trails", 3)])
def test_an_impossible_option_is_refused(called: Called, option: tuple[str, int]) -> None:
    refusal(called(search.main, *LINE, *option), option[0])
    assert not Path("outputs").exists()
