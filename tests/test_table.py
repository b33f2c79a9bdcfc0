import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cifar_lab import fitting, table
from cifar_lab.analysis import sweep_report
from tests.conftest import TINY, Outcome

Lab = Callable[..., Outcome]
ONE = (*TINY, "epochs=1")


@pytest.fixture
def command(called: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Run `python -m cifar_lab.table` with arguments in this process: its exit code, and what it printed."""
    return partial(called, table.main)


def test_a_sweep_ends_in_its_table(lab: Lab) -> None:
    outcome = lab("-m", *ONE, "loss=ce,mse", "seed=0,1")
    folder = outcome.runs[0].folder.parent
    frame = pd.read_csv(folder / "table.csv").set_index("loss")
    for loss in ("ce", "mse"):
        accuracies = pd.Series(
            [run.result()["test/acc"] for run in outcome.runs if run.result()["options"]["loss"] == loss]
        )
        assert frame.loc[loss, "test/acc_mean"] == pytest.approx(accuracies.mean())
        assert frame.loc[loss, "test/acc_sd"] == pytest.approx(accuracies.std())
    lines = outcome.stdout.splitlines()
    announced = [line for line in lines if line.startswith("job ") and "epoch" not in line]
    assert [line.split(":")[0].split(",")[0] for line in announced] == [f"job {number} of 4" for number in (1, 2, 3, 4)]
    assert "left" not in announced[0]
    assert all(" left: loss=" in line for line in announced[1:])
    assert any(line.startswith("job 1 of 4  epoch 1/1") and line.endswith(" of the sweep") for line in lines)
    assert lines[-1] == "- table and figures: outputs/loss-seed/table.md"
    assert "test acc %" in outcome.stdout
    assert (folder / "curves.png").stat().st_size > 1_000
    assert "| ce " in (folder / "table.md").read_text()


def test_a_job_that_fails_is_a_row_that_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_and_test = fitting.fit_and_test

    def broken(config: Any, *arguments: Any) -> dict[str, Any]:
        if config.loss._target_.endswith("MSELoss") or config.seed == 1:
            raise RuntimeError("out of memory")
        return fit_and_test(config, *arguments)

    monkeypatch.setattr(fitting, "fit_and_test", broken)
    outcome = lab("-m", *ONE, "loss=ce,mse", "seed=0,1")
    assert outcome.code == 1
    states = pd.read_csv(outcome.runs[0].folder.parent / "table.csv").set_index("loss")["state"]
    assert states["ce"] == "1 of 2 finished; seed 1 failed: out of memory"
    assert states["mse"] == "0 of 2 finished; seeds 0 1 failed: out of memory"


def test_an_interrupted_sweep_has_the_table_of_what_ran(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_and_test = fitting.fit_and_test

    def interrupted(config: Any, *arguments: Any) -> dict[str, Any]:
        if config.seed == 1:
            raise KeyboardInterrupt
        return fit_and_test(config, *arguments)

    monkeypatch.setattr(fitting, "fit_and_test", interrupted)
    outcome = lab("-m", *ONE, "seed=0,1,2")
    assert outcome.code == 130
    (state,) = pd.read_csv(outcome.runs[0].folder.parent / "table.csv")["state"]
    assert state == "1 of 3 finished; seed 1 interrupted: KeyboardInterrupt; seed 2 missing"


def test_the_command_compares_a_folder_any_time_later(lab: Lab, command: Callable[..., tuple[int, str, str]]) -> None:
    outcome = lab("-m", *ONE, "loss=ce,mse")
    folder = outcome.runs[0].folder.parent
    written = {name: (folder / name).read_text() for name in ("table.md", "table.csv")}
    for name in (*written, "curves.png", "accuracy.png"):
        (folder / name).unlink()
    code, out, _ = command(folder)
    assert code == 0
    assert {name: (folder / name).read_text() for name in written} == written
    assert (folder / "accuracy.png").exists()
    assert out.splitlines()[0].split()[:4] == ["loss", "test", "acc", "%"]
    shutil.rmtree(outcome.runs[1].folder)
    (folder / "table.md").unlink()
    code, out, _ = command(folder, "--json")
    assert not (folder / "table.md").exists()
    assert code == 0
    assert [(row["loss"], row["state"]) for row in json.loads(out)] == [("ce", "finished"), ("mse", "missing")]


def test_any_runs_can_be_compared(lab: Lab, command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    first = lab(*ONE, "hydra.run.dir=a", "optimizer.lr=0.1").runs[0].folder
    second = lab(*ONE, "hydra.run.dir=b", "augment=none").runs[-1].folder
    code, out, _ = command(first, second, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["optimizer.lr"], row["augment"]) for row in rows] == [("0.1", "flip_crop"), ("0.001", "none")]
    assert not (first / "table.md").exists()
    assert command(first)[0] == 0
    assert not (first / "table.md").exists()  # a run's folder is not a place for a table
    assert command(first, second, "--output", tmp_path / "both")[0] == 0
    assert (tmp_path / "both" / "table.csv").exists()


@pytest.mark.parametrize(("path", "words"), [("nowhere", "nowhere is no folder"), (".", "no run in .")])
def test_what_cannot_be_compared_is_one_line(
    command: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {words}")
    assert len(err.splitlines()) == 1


def test_a_damaged_run_takes_no_sweep_down(lab: Lab) -> None:
    outcome = lab("-m", *ONE, "seed=0,1")
    outcome.runs[0].result_file.write_text("")
    outcome.runs[1].composition_file.write_text("")
    again = lab("-m", *ONE, "seed=0,1")
    assert again.code == 0
    assert [run.has_result() for run in again.runs] == [True, True]  # the first was trained again
    assert "unreadable" in again.stdout


def test_the_same_folder_named_twice_is_one(lab: Lab, command: Callable[..., tuple[int, str, str]]) -> None:
    folder = lab("-m", *ONE, "seed=0,1").runs[0].folder.parent
    Path("link").symlink_to(folder)
    (row,) = json.loads(command(folder, folder, "link", "--json")[1])
    assert (row["runs"], row["state"]) == (2, "finished")


def test_a_reader_that_has_enough_is_no_error(lab: Lab) -> None:
    folder = lab("-m", *ONE, "seed=0,1").runs[0].folder.parent
    line = f"{sys.executable} -m cifar_lab.table {folder} --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_table_that_cannot_be_written_does_not_hide_what_the_sweep_says(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device", "table.md")

    monkeypatch.setattr(sweep_report, "write", broken)
    outcome = lab("-m", *ONE, "seed=0,1")
    assert outcome.code == 1
    assert [run.state() for run in outcome.runs] == ["finished", "finished"]
    assert outcome.stderr.splitlines()[-1].startswith("error: the table was not written: ")
