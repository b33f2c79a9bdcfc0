import json
import os
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.runs import Run, RunExistsError, locked, read_checkpoint, replacing
from tests.conftest import Train
from tests.kinds_of_runs import FINISHED


def test_a_runs_files_are_read_back(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    config = {"seed": 1, "model": {"filters": [1, 2, 3]}}
    parts = {"overrides": ["seed=1"], "options": {"loss": "ce"}, "interpolations": {"data.seed": "${seed}"}}
    run.start(config, **parts)  # type: ignore[arg-type]
    run.append_metrics({"epoch": 1, "train/loss": 0.5, "val/acc": float("nan")})
    run.append_metrics({"epoch": 2, "train/loss": 0.25, "val/acc": 0.75})
    run.write_steps({"loss": np.array([1.0, 2.0], np.float32), "lr": np.array([0.1, 0.1])})
    run.write_probes({"step": np.array([0, 100]), "eta": np.array([[0.5], [np.inf]])})
    run.finish({"test/acc": 0.5})
    assert run.config() == config
    assert run.composition() == {**parts, "config": config}
    assert run.metrics()["train/loss"].tolist() == [0.5, 0.25]
    assert run.metrics()["val/acc"].isna().tolist() == [True, False]
    assert run.steps()["loss"].tolist() == [1.0, 2.0]
    assert run.probes()["eta"].tolist() == [[0.5], [np.inf]]
    assert run.result() == {"schema_version": 1, "test/acc": 0.5, "status": "finished"}
    status = run.status()
    assert (status["state"], status["host"], status["process"]) == ("finished", socket.gethostname(), os.getpid())
    assert not [path.name for path in run.folder.iterdir() if path.name.startswith(".status")]


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start({})
    run.finish({"test/acc": 0.5})
    with pytest.raises(RunExistsError, match=rf"{re.escape(str(tmp_path))}.*\bhydra\.run\.dir="):
        run.start({})
    assert run.result()["test/acc"] == 0.5


@pytest.mark.parametrize("goes_on", [True, False])
def test_unfinished_files_of_a_killed_process_are_removed_when_the_run_restarts(tmp_path: Path, goes_on: bool) -> None:
    run = Run(tmp_path)
    run.start({})
    run.checkpoints.mkdir()
    (run.checkpoints / ".mine").touch()
    writing = [replacing(path) for path in (run.status_file, run.config_file, run.last_checkpoint)]
    for file in writing:
        file.__enter__()  # never exited, as after a SIGKILL
    assert len(list(tmp_path.rglob("*.part"))) == 3
    run.start({}, goes_on=goes_on)
    assert not list(tmp_path.rglob("*.part"))
    assert (run.checkpoints / ".mine").exists() == goes_on


def test_a_failure_leaves_a_traceback_and_no_result_and_the_run_restarts_from_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start({})
    run.append_metrics({"epoch": 1})
    run.checkpoints.mkdir()
    run.last_checkpoint.write_text("old")
    run.write_probes({"step": np.array([0])})
    run.save_snapshot(nn.Linear(1, 1), 3)
    assert list(run.snapshots()) == [3]
    run.result_file.write_text("{}")
    try:
        raise RuntimeError("no")
    except RuntimeError as error:
        run.fail("failed", error)
    assert not run.result_file.exists()
    assert run.status()["state"] == "failed"
    assert run.status()["error"] == "no"
    traceback = run.error_file.read_text(encoding="utf-8")
    assert "Traceback" in traceback and "RuntimeError: no" in traceback
    run.start({})
    assert run.status()["state"] == "running"
    assert not run.snapshots()
    left = (run.metrics_file, run.checkpoints, run.probes_file, run.error_file)
    assert not any(path.exists() for path in left)


def test_an_aborted_write_leaves_the_file_unchanged(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start({})
    with pytest.raises(TypeError):
        run.set_state("running", epoch=object())
    assert run.status()["state"] == "running"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hydra", "status.json"]


def test_weights_are_a_plain_contiguous_state_dict(tmp_path: Path) -> None:
    run = Run(tmp_path)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    run.save_weights(model, "weights.pth")
    state = torch.load(run.weights / "weights.pth", weights_only=True)
    assert list(state) == ["weight", "bias"]
    assert torch.equal(state["weight"], model.weight)
    assert state["weight"].is_contiguous()
    run.save_weights(model, "trained_further.pth")
    assert [path.name for path in run.weights.iterdir()] == ["trained_further.pth"]


def test_the_best_epoch_is_the_first_of_equals_with_the_validation_of_its_row(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append_metrics({"epoch": 1, "val/acc": float("nan"), "val/loss": float("nan")})
    assert run.best_epoch() is None
    for epoch, accuracy in enumerate((0.25, float("nan"), 0.75, 0.75), start=2):
        run.append_metrics({"epoch": epoch, "val/acc": accuracy, "val/loss": 1 - accuracy})
    assert run.best_epoch() == 4
    assert run.validation(4) == {"val/acc": 0.75, "val/loss": 0.25}


def test_an_outcome_is_the_result_or_the_state_of_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start({}, ["seed=1"])
    with locked(run.lock_file):
        assert run.outcome() == {"status": "running", "folder": str(tmp_path), "overrides": ["seed=1"]}
    run.fail("failed", RuntimeError("no"))
    assert run.outcome()["status"] == "failed"
    assert run.outcome()["error"] == "no"
    run.start({}, ["seed=1"])
    run.finish({"test/acc": 0.5})
    assert run.outcome() == {**run.result(), "folder": str(tmp_path)}
    assert "error" not in run.status()


def test_a_running_run_is_dead_if_no_live_process_holds_its_lock(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with locked(run.lock_file):
        run.start({})
        assert run.state() == "running"
        told = json.loads(run.lock_file.read_text())
        run.lock_file.write_text(json.dumps({**told, "process": 2**22 + 1}))  # above the largest process number
        assert run.state() == "dead"
    run.lock_file.unlink()
    assert run.state() == "dead"
    run.finish({"test/acc": 0.5})
    assert run.state() == "finished"


def test_records_after_a_checkpoint_are_removed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch, "val/acc": 0.5})
    with run.metrics_file.open("a") as file:
        file.write("4,0.")  # the writer was killed in the middle of a row
    run.write_steps({"loss": np.arange(12.0), "lr": np.arange(12.0)})
    run.truncate(epochs=2, steps=8)
    assert run.metrics()["epoch"].tolist() == [1, 2]
    assert [len(values) for values in run.steps().values()] == [8, 8]
    run.truncate(epochs=3, steps=20)  # the last epoch's row may not exist yet
    assert run.metrics()["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_final_weights_are_the_raw_ones_with_and_without_snapshots(trained: Train, averaging: str) -> None:
    words = (f"averaging={averaging}", "averaging.decay=0.5" if averaging == "ema" else "averaging.start=0")
    run = trained(*FINISHED, *words, "callbacks=snapshots")
    snapshot, average = run.snapshot(2), read_checkpoint(run.last_checkpoint)["state_dict"]
    assert not torch.equal(snapshot["conv_layers.0.weight"], average["model.conv_layers.0.weight"])
    both = run.final_state()
    shutil.rmtree(run.snapshots_folder)
    from_checkpoint = run.final_state()
    for state in (both, from_checkpoint):
        torch.testing.assert_close(state, snapshot, rtol=0, atol=0)
    run.last_checkpoint.unlink()  # the best epoch's weights remain, but are not the final ones
    with pytest.raises(ValueError, match="last checkpoint"):
        run.final_state()
