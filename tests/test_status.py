import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cifar_lab import status
from cifar_lab.runs import Run, Sweep, locked
from tests.conftest import Called, holds, on_a_terminal, refusal

pytestmark = pytest.mark.usefixtures("empty_folder")
DIVERGED = "train/loss is nan"


@contextmanager
def _sweep(folder: Path) -> Iterator[None]:
    """Four jobs: one finished, one running, one diverged, and one not started."""
    Sweep(folder).plan([[f"seed={seed}"] for seed in range(4)])
    runs = [Run(folder / f"seed={seed}") for seed in range(3)]
    for seed, run in enumerate(runs):
        run.start({"seed": seed}, [f"seed={seed}", "name=seed"])
        run.set_state("running", epoch=1, epochs=3)
    runs[0].append_metrics({"epoch": 1, "val/acc": 0.25})
    runs[0].finish({"test/acc": 0.5})
    runs[1].append_metrics({"epoch": 1, "val/acc": 0.375})
    runs[2].append_metrics({"epoch": 1, "val/acc": 0.1})
    runs[2].fail("diverged", RuntimeError(DIVERGED))
    with locked(runs[1].lock_file):
        yield


def test_runs_and_sweeps_are_listed_with_state_epoch_accuracy_age_and_folder(called: Called, tmp_path: Path) -> None:
    with _sweep(tmp_path / "outputs" / "seed"):
        code, out, _ = called(status.main, "outputs")
    assert code == 0
    header, *rows, sweep = [line.split() for line in out.splitlines()]
    assert header == ["state", "epoch", "accuracy", "age", "folder"]
    assert [row[:4] for row in rows[:2]] == [["finished", "1/3", "test", "50.00%"], ["running", "1/3", "val", "37.50%"]]
    assert rows[2][:2] == ["diverged", "1/3"]
    assert all(row[-2:] == ["s", f"outputs/seed/seed={seed}"] for seed, row in enumerate(rows))
    facts = ("outputs/seed", "4 jobs", "1 finished", "1 running", "1 diverged", "1 missing")
    holds(" ".join(sweep), *facts)


def test_json_has_the_same_content(called: Called, tmp_path: Path) -> None:
    with _sweep(tmp_path / "outputs" / "seed"):
        code, out, _ = called(status.main, "--json")  # the folder defaults to outputs
    assert code == 0
    told = json.loads(out)
    assert [run["state"] for run in told["runs"]] == ["finished", "running", "diverged"]
    accuracies = [(run["accuracy"], run["measured_on"]) for run in told["runs"]]
    assert accuracies == [(0.5, "test"), (0.375, "val"), (None, None)]
    assert told["runs"][2]["error"] == DIVERGED
    assert 0 <= told["runs"][0]["age"] < 100
    states = {"finished": 1, "running": 1, "diverged": 1, "missing": 1}
    assert told["sweeps"] == [{"folder": "outputs/seed", "jobs": 4, "states": states}]


def test_a_run_whose_process_is_gone_is_dead(called: Called, tmp_path: Path) -> None:
    run = Run(tmp_path / "outputs" / "a")
    run.start({})
    run.set_state("running", process=2**22 + 1)  # above the largest process number
    assert called(status.main)[1].splitlines()[1].split()[0] == "dead"


def test_missing_runs_and_a_missing_folder_are_reported(called: Called, tmp_path: Path) -> None:
    refusal(called(status.main, "outputs"), "outputs")
    (tmp_path / "outputs").mkdir()
    code, out, err = called(status.main, "outputs")
    assert (code, len(out.splitlines()), err) == (0, 1, "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (120, "2 min"), (7200, "2 h"), (2 * 86_400, "2 d"), (None, "")]
)
def test_an_age_is_printed_in_one_unit(seconds: float | None, text: str) -> None:
    assert status._age(seconds) == text


def test_watching_into_a_file_prints_each_change_until_nothing_runs(
    called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(_: float) -> None:
        run = Run(tmp_path / "outputs" / "seed" / "seed=1")
        run.append_metrics({"epoch": 2, "val/acc": 0.5})
        run.set_state("running", epoch=2) if run.status()["epoch"] == 1 else run.finish({"test/acc": 0.625})

    monkeypatch.setattr(status.time, "sleep", later)
    with _sweep(tmp_path / "outputs" / "seed"):
        code, out, err = called(status.main, "--watch")
    *_, first, finished, sweep = out.splitlines()
    assert (code, err, len(out.splitlines())) == (0, "", 7)  # three runs and a sweep, then the changes
    assert first.split()[:4] == ["running", "2/3", "val", "50.00%"]
    assert finished.split()[:4] == ["finished", "2/3", "test", "62.50%"]
    holds(sweep, "2 finished", "1 diverged", "1 missing")
    assert "running" not in sweep


def test_watching_on_a_terminal_redraws_the_list(
    called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.time, "sleep", lambda _: Run(tmp_path / "outputs/seed/seed=1").finish({"test/acc": 0.5}))
    on_a_terminal(monkeypatch)
    with _sweep(tmp_path / "outputs" / "seed"):
        out = called(status.main, "--watch")[1]
    assert out.count(status._CLEAR) == out.count("accuracy") == 2
    refusal(called(status.main, "--watch", "--json"), "--json")
