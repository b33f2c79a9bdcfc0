"""Every row of the published report in one command: its plan, its runs, its files."""

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cifar_lab import reproduce
from cifar_lab.config import checked
from cifar_lab.report.published import Scale
from cifar_lab.reproduce import Planned, chosen, plan
from cifar_lab.runs import Archive, Run, find_runs, read_run
from cifar_lab.train import cost, fitting
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.cost import Speed
from tests.claim_runs import row
from tests.conftest import names, refusal
from tests.landscape_runs import diverge
from tests.published_runs import leave_run

Command = Callable[..., tuple[int, str, str]]
# Tiny networks: real ones take minutes on a slow machine, and these tests do not depend on the size.
DATA = ["data=synthetic", "data.num_train=80", "data.num_test=20", "data.train_size=64", "batch_size=32"]
TINY = [*DATA, "model.filters=[2,2,2]", "logger=none"]


@pytest.fixture
def command(called: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `python -m cifar_lab.reproduce` with arguments in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(called, reproduce.main)


CYCLE = {"scheduler.T_0": 1}


@pytest.mark.parametrize(
    ("name", "quick", "smoke"),
    [
        ("optimizer_adam", {"epochs": 5, "scheduler.step_size": 2}, {"scheduler.step_size": 1}),
        ("loss_label_smoothing", {"epochs": 8}, {}),
        ("swa", {"epochs": 10}, {"averaging.start": 0}),
        ("resnet_adamw", {"epochs": 20, **CYCLE}, {**CYCLE, "trainer.check_val_every_n_epoch": 1}),
    ],
)
def test_scales_give_command_lines_that_can_be_run(name: str, quick: dict[str, int], smoke: dict[str, int]) -> None:
    made = row(name)
    assert made.shortened(Scale.FULL) == {}
    assert made.shortened(Scale.QUICK) == quick
    assert made.shortened(Scale.SMOKE) == {"epochs": 1, **smoke, "data.train_size": 1000}
    assert made.command(Scale.QUICK, 3, "holdout")[-2:] == ["protocol=holdout", "seed=3"]
    for scale in (Scale.QUICK, Scale.SMOKE) if name in ("swa", "resnet_adamw") else ():
        assert checked([*made.command(scale), "data=synthetic"]).jobs


def planned_of(names: str) -> list[Planned]:
    return plan(chosen(names), Scale.FULL, [0], "report", ["data=synthetic"], Archive("none"))


@pytest.mark.usefixtures("empty_folder")
def test_the_plan_has_every_composition_once_and_a_hypothesis_only_if_named() -> None:
    assert len(chosen("")) == 24
    planned = planned_of("loss_ce,optimizer_adam,optimizer_sgd")
    assert [one.row.name for one in planned] == ["loss_ce", "optimizer_sgd"]
    assert [one.tables for one in planned] == [("loss", "optimizer"), ("optimizer",)]
    assert {one.state for one in planned} == {planned[0].state}
    assert not any(one.is_finished for one in planned)
    command = "experiment=loss_ce protocol=report seed=0 name=report-loss resume=auto data=synthetic"
    assert planned[0].command == tuple(command.split())
    assert not any(table.startswith("hypothesis") for table, _ in chosen(""))
    assert [table for table, _ in chosen("optimizer_sgd")] == ["optimizer"]
    (one,) = planned_of("sgd_no_dropout")
    command = "experiment=optimizer_sgd model.dropout=0 published=null protocol=report seed=0"
    assert one.command[:5] == tuple(command.split())
    assert "name=report-hypothesis-sgd_no_dropout" in one.command
    assert (one.config["model"]["dropout"], one.config["published"]) == (0, None)


@pytest.mark.usefixtures("empty_folder")
def test_a_rows_run_is_found_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-bin"  # looks like CIFAR-10 until it is read
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        with (folder / f"{name}.bin").open("wb") as file:
            file.truncate(30_730_000)
    (folder / "batches.meta.txt").write_text("a\n" * 10)
    monkeypatch.setenv("CIFAR_LAB_DATA", str(folder.parent))
    leave_run(tmp_path / "outputs" / "by" / "another" / "name", row("optimizer_adam"), 0.88)
    leave_run(tmp_path / "outputs" / "begun", row("optimizer_sgd"), 0.7, finished=False)
    kept = leave_run(tmp_path / "elsewhere", row("optimizer_sign_sgd"), 0.8)
    archive = Archive(tmp_path / "results")
    archive.add([read_run(kept)])
    diverge(leave_run(tmp_path / "outputs" / "diverged", row("activation_relu"), 0.8))
    relu, adam, sgd, sign_sgd = plan(chosen("activation_relu,optimizer"), Scale.FULL, [0], "report", [], archive)
    assert (relu.state.split(",")[0], relu.is_finished) == ("diverged", True)
    assert adam.state == f"finished, {Path('outputs/by/another/name')}"
    assert (sgd.state, sgd.epoch, sgd.is_finished) == ("dead", 50, False)
    assert sign_sgd.state == f"finished, {archive.results_file}"


def test_unknown_names_are_refused(command: Command, tmp_path: Path) -> None:
    refusal(command("--only", "optimiser"), "--only optimiser", "optimizer")
    refusal(command("--seed", "x"), "--seed x")
    refusal(command("nowhere=1", "--only", "optimizer_sgd"), "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_measures_each_network_once_and_lists_the_shortest_runs_first(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rows with the fewest epochs use the slow network, so epochs alone do not give the order.
    measure = Mock(side_effect=lambda config: Speed(100 if config["model"]["dropout"] == 0.5 else 1000, 1000))
    monkeypatch.setattr(cost, "measure", measure)
    code, out, _ = command("--only", "loss,optimizer_sgd", "--dry-run", "data=synthetic")
    assert code == 0
    lines = [line.split() for line in out.splitlines() if line.startswith(("loss_", "optimizer_"))]
    epochs = {line[0]: int(line[3]) for line in lines}
    of_losses = {"loss_ce": 50, "loss_focal": 50, "loss_label_smoothing": 75, "loss_mse": 100}
    assert epochs == {**of_losses, "optimizer_sgd": 50}
    assert [line[0] for line in lines][:2] == ["loss_label_smoothing", "loss_mse"]
    assert measure.call_count == 4  # two of the five rows train one network
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_failure_does_not_stop_the_other_rows_and_the_same_command_resumes_after_a_signal(
    command: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    arguments = ("--only", "activation_relu,optimizer_sgd", "--scale", "smoke", *TINY, "epochs=2")
    append, due, fit_and_test = Run.append_metrics, [number], fitting.fit_and_test

    def interrupted(run: Run, row: Mapping[str, Any]) -> None:
        append(run, row)
        if due:
            os.kill(os.getpid(), due.pop())

    def failing(config: Any, attempt: Attempt, *rest: Any) -> dict[str, Any]:
        if attempt.run.folder.parent.name == "report-smoke-activation":
            raise RuntimeError("memory")
        return fit_and_test(config, attempt, *rest)

    monkeypatch.setattr(cost, "measure", lambda config: Speed(1000, 1000))
    monkeypatch.setattr(Run, "append_metrics", interrupted)
    monkeypatch.setattr(fitting, "fit_and_test", failing)
    ended, out, err = command(*arguments)
    assert ended == code
    assert out.count("python -m cifar_lab.train experiment=") == 2
    names(err.splitlines()[-1], number.name)
    runs = {run.folder.parent.name: run for run in find_runs("outputs")}
    assert {name: run.state() for name, run in runs.items()} == {
        "report-smoke-activation": "failed",
        "report-smoke-optimizer": "interrupted",
    }
    sgd = runs["report-smoke-optimizer"]
    assert len(sgd.metrics()) == 1

    ended, _, err = command(*arguments)
    assert ended == 1
    names(err.splitlines()[-1], "activation_relu")
    assert (sgd.state(), sgd.result()["epochs"]) == ("finished", 2)
    before = sgd.status()["heartbeat"]
    assert command("--only", "optimizer_sgd", *arguments[2:])[0] == 0
    assert sgd.status()["heartbeat"] == before
