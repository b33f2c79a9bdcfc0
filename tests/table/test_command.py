import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from cifar_lab import table
from cifar_lab.config import checked
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.runs import Run, find_runs
from cifar_lab.table import output
from cifar_lab.table.command import compare_folders
from cifar_lab.train import fitting
from cifar_lab.train.command import launch, tabulate
from tests.conftest import TINY, Called, Lab, holds, quick, refusal

SWEEP = ("-m", *TINY, "epochs=1", "logger=none", "loss=ce,mse", "seed=0,1", "name=loss-seed")
FOLDER = Path("outputs/loss-seed")


class FinishedSweep(NamedTuple):
    """A finished sweep and its output."""

    folder: Path
    printed: str


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> FinishedSweep:
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        quick(patch)
        patch.chdir(place)
        launch(checked(SWEEP))
    return FinishedSweep(place / FOLDER, printed.getvalue())


@pytest.fixture
def folder(finished_sweep: FinishedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that sweep in the current folder, at the path where its command left it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished_sweep.folder, FOLDER))


def test_a_sweep_ends_with_its_table(finished_sweep: FinishedSweep) -> None:
    frame = pd.read_csv(finished_sweep.folder / "table.csv").set_index("loss")
    results = [run.result() for run in find_runs(finished_sweep.folder)]
    assert len(results) == 4
    for loss in ("ce", "mse"):
        accuracies = pd.Series([result["test/acc"] for result in results if result["options"]["loss"] == loss])
        assert frame.loc[loss, "test/acc_mean"] == pytest.approx(accuracies.mean())
        assert frame.loc[loss, "test/acc_sd"] == pytest.approx(accuracies.std())
    assert (finished_sweep.folder / "curves.png").exists()
    assert "| ce " in (finished_sweep.folder / "table.md").read_text(encoding="utf-8")


def test_the_curves_of_different_losses_are_training_accuracies(finished_sweep: FinishedSweep) -> None:
    figure = output.curves(compare_folders([finished_sweep.folder]), "losses")
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["training accuracy", "validation (held out) accuracy"]


def test_a_sweep_prints_its_progress_and_its_table(finished_sweep: FinishedSweep) -> None:
    lines = finished_sweep.printed.splitlines()
    announced = [line for line in lines if line.startswith("job ") and "epoch" not in line]
    assert [line.split(":")[0].split(",")[0] for line in announced] == [f"job {number} of 4" for number in (1, 2, 3, 4)]
    assert ["," in line.partition("loss=")[0] for line in announced] == [False, True, True, True]  # the time left
    assert any(line.startswith("job 1 of 4") and "epoch 1/1" in line for line in lines)
    assert lines[-1].endswith(str(FOLDER / "table.md"))
    assert any(line.startswith("ce ") for line in lines)


def test_failures_damaged_runs_and_an_interruption_do_not_prevent_the_table(
    folder: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_and_test = fitting.fit_and_test

    def broken(config: Any, *arguments: Any) -> dict[str, Any]:
        if config.loss._target_.endswith("MSELoss"):
            raise KeyboardInterrupt
        if config.seed == 1:
            raise RuntimeError("memory")
        return fit_and_test(config, *arguments)

    monkeypatch.setattr(fitting, "fit_and_test", broken)
    for loss, seed in (("ce", 1), ("mse", 0)):
        shutil.rmtree(_run(folder, loss, seed).folder)
    again, unreadable = _run(folder, "ce", 0), _run(folder, "mse", 1)
    accuracy = again.result()["test/acc"]
    again.result_file.write_text("")
    unreadable.composition_file.write_text("")
    outcome = lab(*SWEEP)
    assert outcome.code == 130
    assert again.result()["test/acc"] == accuracy
    assert unreadable.has_result()
    assert "unreadable" in outcome.stdout
    states = pd.read_csv(folder / "table.csv").set_index("loss")["state"]
    holds(states["ce"], "1 of 2", "seed 1 failed", "memory")
    holds(states["mse"], "0 of 2", "seed 0 interrupted", "seed 1 missing")


def _run(folder: Path, loss: str, seed: int) -> Run:
    (run,) = [run for run in find_runs(folder) if {f"loss={loss}", f"seed={seed}"} <= set(run.overrides())]
    return run


def test_the_command_compares_a_folder_at_any_later_time(folder: Path, called: Called) -> None:
    written = {name: (folder / name).read_bytes() for name in ("table.md", "table.csv")}
    for name in (*written, "curves.png", "accuracy.png"):
        (folder / name).unlink()
    code, out, _ = called(table.main, folder)
    assert code == 0
    assert {name: (folder / name).read_bytes() for name in written} == written
    assert (folder / "accuracy.png").exists()
    assert out.split()[:3] == ["loss", "test", "acc"]


def test_any_runs_can_be_compared(folder: Path, called: Called, tmp_path: Path) -> None:
    first, second = (_run(folder, loss, 0).folder for loss in ("ce", "mse"))
    Path("link").symlink_to(folder)
    for paths, seeds in (((first, second), 1), ((folder, folder, "link"), 2)):  # a repeated folder counts once
        code, out, _ = called(table.main, *paths, "--json")
        assert code == 0
        assert [(row["loss"], row["runs"], row["state"]) for row in json.loads(out)] == [
            ("ce", seeds, "finished"),
            ("mse", seeds, "finished"),
        ]
    assert called(table.main, first)[0] == 0
    assert not (first / "table.md").exists()  # tables are not written into a run's folder
    assert called(table.main, first, second, "--output", tmp_path / "both")[0] == 0
    assert (tmp_path / "both" / "table.csv").exists()


def test_runs_that_cannot_be_compared_are_named(
    called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("nowhere", "."):
        assert path in refusal(called(table.main, path)).split(";")[0].split()
    assert not list(tmp_path.iterdir())


def test_a_reader_that_stops_early_causes_no_error(
    folder: Path, called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as nobody_reads:
        monkeypatch.setattr("sys.stdout", nobody_reads)
        code, _, err = called(table.main, folder, "--json")
    assert (code, err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["-u"], []], ids=["unbuffered", "buffered"])
def test_a_reader_that_stops_early_causes_no_error_in_a_process(folder: Path, flags: list[str]) -> None:
    words = [sys.executable, *flags, "-m", "cifar_lab.table", str(folder), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_table_that_cannot_be_written_is_a_failure_but_does_not_end_the_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device", "table.md")

    monkeypatch.setattr(output, "write", broken)
    with pytest.raises(RunFailedError, match=r"Errno 28.*table\.md") as failure:
        tabulate(folder)
    assert (failure.value.exit_code, len(str(failure.value).splitlines())) == (1, 1)
