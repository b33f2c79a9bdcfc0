"""Training from Python: `cifar_lab.train.run` and `sweep`."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cifar_lab.config import RunFailedError, conf_folder
from cifar_lab.runs import Run
from cifar_lab.train import run, sweep
from tests.conftest import TINY

ONE = [*TINY, "epochs=1"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_run_trains_a_composition_and_returns_its_result() -> None:
    result = run([*ONE, "loss=mse", "seed=3"])
    assert (result["options"]["loss"], result["seed"], result["status"]) == ("mse", 3, "finished")
    assert 0 <= result["test/acc"] <= 1
    folder = Path(result.pop("folder"))
    assert Run(folder).result() == result
    assert run([*ONE, "hydra.run.dir=again", "loss=mse", "seed=3"])["test/acc"] == result["test/acc"]


def test_sweep_trains_every_composition_and_returns_their_results_in_order() -> None:
    results = sweep([*ONE, "loss=mse,ce", "seed=0,1"])
    assert [(result["options"]["loss"], result["seed"]) for result in results] == [
        *(("mse", 0), ("mse", 1), ("ce", 0), ("ce", 1))
    ]
    assert Path("outputs/loss-seed/table.md").exists()
    assert {Path(result["folder"]).parent for result in results} == {Path.cwd() / "outputs" / "loss-seed"}
    assert sweep([*ONE, "loss=mse,ce", "seed=0,1"]) == results


def test_a_sweep_goes_on_where_a_run_fails_and_says_which() -> None:
    finished, diverged = sweep([*ONE, "optimizer=sgd", "grad_clip=0", "optimizer.lr=0.01,1e30"])
    assert finished["status"] == "finished"
    assert diverged["status"] == "diverged"
    assert diverged["error"].startswith("the loss is nan in step ")
    assert "test/acc" not in diverged


def test_what_cannot_be_run_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="loss=foo does not exist"):
        run(["loss=foo"])
    with pytest.raises(ValueError, match="add --multirun to run each"):
        run([*ONE, "loss=ce,mse"])
    with pytest.raises(ValueError, match=r"run\(\) trains one composition"):
        run(["--help"])
    with pytest.raises(ValueError, match=r"sweep\(\) trains"):
        sweep(["--help"])
    with pytest.raises(ValueError, match=r"a list of words is needed, such as \['seed=1'\]"):
        run("seed=1")
    with pytest.raises(ValueError, match=r"hydra.mode=MULTIRUN: a sweep is asked for by --multirun"):
        run([*ONE, "hydra.mode=MULTIRUN"])
    assert not list(Path.cwd().iterdir())


def test_a_run_that_fails_raises_and_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["notebook", "-f", "kernel.json"])
    with pytest.raises(RunFailedError, match="the loss is nan in step"):
        run([*ONE, "optimizer=sgd", "grad_clip=0", "optimizer.lr=1e30"])
    assert sys.argv == ["notebook", "-f", "kernel.json"]
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_callers_own_hydra_and_logging_are_as_before(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        run(ONE)
        assert compose("train", ["name=x", "seed=3"]).seed == 3
    assert (root.handlers, root.level) == (handlers, level)


def test_it_works_where_there_is_no_file_as_in_a_notebook(tmp_path: Path) -> None:
    code = f"from cifar_lab.train import run\nprint(run({ONE!r})['status'])"
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "finished"
