"""Every row of the published report by one command: what it plans, what it runs, what it leaves."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.analysis.published import Row, Scale
from cifar_lab.command import application
from cifar_lab.config import checked
from cifar_lab.config.published import tables
from cifar_lab.cost import Speed
from cifar_lab.planned import chosen, network_of, plan
from cifar_lab.reproduce import reproduce
from cifar_lab.runs import Archive, ArchivedRun, Run, find_runs
from tests.published_runs import leave_run

# Tiny networks: the real ones take minutes on a slow machine, and what is tested here does not depend on them.
TINY = [
    "data=synthetic",
    "data.num_train=80",
    "data.num_test=20",
    "data.train_size=64",
    "batch_size=32",
    "model.filters=[2,2,2]",
    "logger=none",
]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for table in tables() for row in table.rows}


def call(*arguments: str) -> int:
    app = application()
    app.command()(reproduce)
    return int(app([*arguments], standalone_mode=False) or 0)


@pytest.mark.parametrize(
    ("name", "quick", "smoke"),
    [
        ("optimizer_adam", {"epochs": 5, "scheduler.step_size": 2}, {"epochs": 1, "scheduler.step_size": 1}),
        ("loss_label_smoothing", {"epochs": 8}, {"epochs": 1}),
        ("scheduler_plateau", {"epochs": 5}, {"epochs": 1}),
        ("swa", {"epochs": 10}, {"epochs": 1, "averaging.start": 0}),
        (
            "resnet_adamw",
            {"epochs": 20, "scheduler.T_0": 1},
            {"epochs": 1, "scheduler.T_0": 1, "trainer.check_val_every_n_epoch": 1},
        ),
        ("vgg_a_bn,optimizer.lr=2e-3", {"epochs": 2}, {"epochs": 1}),
    ],
)
def test_scales(rows: dict[str, Row], name: str, quick: dict[str, int], smoke: dict[str, int]) -> None:
    row = rows[name]
    assert row.shortened(Scale.FULL) == {}
    assert row.shortened(Scale.QUICK) == quick
    assert row.shortened(Scale.SMOKE) == {**smoke, "data.train_size": 1000}
    assert row.command(Scale.QUICK, 3, "holdout")[-2:] == ["protocol=holdout", "seed=3"]


@pytest.mark.parametrize("name", ["swa", "resnet_adamw", "scheduler_plateau", "loss_focal"])
@pytest.mark.parametrize("scale", [Scale.QUICK, Scale.SMOKE])
def test_shortened_rows_can_be_run(rows: dict[str, Row], name: str, scale: Scale) -> None:
    assert checked([*rows[name].command(scale), "data=synthetic"]).trains


def test_the_plan_has_every_composition_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan(chosen(""), Scale.FULL, [0], "report", ["data=synthetic"], Archive("none"))
    assert len(planned) == 23
    (both,) = [one for one in planned if len(one.tables) > 1]
    assert (both.row.name, both.tables) == ("loss_ce", ("loss", "optimizer"))
    assert all(one.state == "to do" for one in planned)
    assert planned[0].command == (
        "experiment=activation_leaky_relu",
        "protocol=report",
        "seed=0",
        "name=report-activation",
        "resume=auto",
        "data=synthetic",
    )


def test_a_hypothesis_is_run_by_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not any(table.startswith("hypothesis") for table, _ in chosen(""))
    assert [table for table, _ in chosen("optimizer_sgd")] == ["optimizer"]
    (one,) = plan(chosen("sgd_no_dropout"), Scale.FULL, [0], "report", ["data=synthetic"], Archive("none"))
    assert one.command[:5] == (
        "experiment=optimizer_sgd",
        "model.dropout=0",
        "published=null",
        "protocol=report",
        "seed=0",
    )
    assert "name=report-hypothesis-sgd_no_dropout" in one.command
    assert (one.config["model"]["dropout"], one.config["published"]) == (0, None)


def test_a_row_is_found_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, Row], data_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIFAR_LAB_DATA", str(data_folder))
    leave_run(tmp_path / "outputs" / "by" / "another" / "name", rows["optimizer_adam"], 0.88)
    leave_run(tmp_path / "outputs" / "begun", rows["optimizer_sgd"], 0.7, finished=False)
    kept = leave_run(tmp_path / "elsewhere", rows["optimizer_sign_sgd"], 0.8)
    config = kept.composition()["config"]
    archive = Archive(tmp_path / "results")
    archive.add([(ArchivedRun(kept.result(), config), kept.metrics())])
    adam, sgd, sign_sgd = plan(chosen("optimizer"), Scale.FULL, [0], "report", [], archive)
    assert adam.state == f"finished, {Path('outputs/by/another/name')}"
    assert (sgd.state, sgd.epoch, sgd.is_finished) == ("dead", 50, False)
    assert sign_sgd.state == f"finished, {archive.results_file}"


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A folder that looks like CIFAR-10's until it is read."""
    folder = tmp_path / "data"
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        with (folder / "cifar-10-batches-bin" / f"{name}.bin").open("wb") as file:
            file.truncate(30_730_000)
    (folder / "cifar-10-batches-bin" / "batches.meta.txt").write_text("a\n" * 10)
    return folder


def test_unknown_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"--only optimiser: no table, .*; did you mean optimizer\?"):
        reproduce(only="optimiser")
    with pytest.raises(ValueError, match="--seed x: it takes whole numbers"):
        reproduce(seed="x")
    with pytest.raises(ValueError, match="nowhere"):
        reproduce(["nowhere=1"], only="optimizer")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("--only", "optimizer", "--scale", "smoke", "--dry-run", *TINY) == 0
    told = capsys.readouterr().out
    assert "measuring 3 networks" in told  # one for each optimizer
    assert "3 of 3 runs to do, about 0:" in told
    assert not (tmp_path / "outputs").exists()


def test_it_runs_what_is_due_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--only", "activation_relu,optimizer_sgd", "--scale", "smoke", *TINY)
    assert call(*arguments) == 0
    told = capsys.readouterr().out
    assert "run 2 of 2: python -m cifar_lab.train experiment=" in told
    assert "2 of 2 runs are finished; python -m cifar_lab.report outputs" in told
    runs = {run.folder.parent.name: run for run in find_runs("outputs")}
    assert set(runs) == {"report-smoke-activation", "report-smoke-optimizer"}
    before = {name: run.status()["heartbeat"] for name, run in runs.items()}
    assert call(*arguments) == 0
    assert "0 of 2 runs to do" in capsys.readouterr().out
    assert {name: run.status()["heartbeat"] for name, run in runs.items()} == before


def test_one_row_that_fails_lets_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # A rate at which plain SGD's loss is soon no number, and Adam's is one.
    arguments = ("--only", "activation_relu,optimizer_sgd", "--scale", "smoke", *TINY, "optimizer.lr=1e30")
    assert call(*arguments) == 1
    told = capsys.readouterr()
    assert "error: not finished: " in told.err
    states = [run.status()["state"] for run in find_runs("outputs")]
    assert len(states) == 2
    assert "diverged" in states
    assert call(*arguments) in (0, 1)
    assert [run.status()["state"] for run in find_runs("outputs")] == states


def test_the_shortest_runs_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def measured(configs: Sequence[Mapping[str, Any]]) -> dict[str, Speed]:
        # The network of the rows with the fewest epochs is the slow one, so epochs alone do not give the order.
        return {
            network_of(config): Speed(100 if config["model"]["dropout"] == 0.5 else 1000, 1000) for config in configs
        }

    monkeypatch.setattr("cifar_lab.reproduce.measured", measured)
    assert call("--only", "loss", "--dry-run", "data=synthetic") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("loss_")]
    epochs = {line[0]: int(line[3]) for line in lines}
    assert epochs == {"loss_ce": 50, "loss_focal": 50, "loss_label_smoothing": 75, "loss_mse": 100}
    assert [line[0] for line in lines][:2] == ["loss_label_smoothing", "loss_mse"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_the_same_command_goes_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    long = [*TINY, "epochs=2000"]
    command = [sys.executable, "-m", "cifar_lab.reproduce", "--only", "activation_relu", "--scale", "quick", *long]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        metrics = None
        deadline = time.monotonic() + 200
        while metrics is None and time.monotonic() < deadline and process.poll() is None:
            metrics = next(tmp_path.glob("outputs/*/*/metrics.csv"), None)
            time.sleep(0.1)
        process.send_signal(number)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, told
    assert "the same command goes on where it stopped" in told
    assert metrics is not None
    assert Run(metrics.parent).status()["state"] == "interrupted"
