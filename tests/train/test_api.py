"""Training from Python: `cifar_lab.train.run` and `sweep`."""

import logging
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from cifar_lab.config import conf_folder
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine import provenance
from cifar_lab.runs import Run
from cifar_lab.train import run, sweep
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("empty_folder")
ONE = [*TINY, "epochs=1", "logger=none"]


def test_run_returns_its_result_and_keeps_the_callers_hydra_and_logging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # no file, as in a notebook
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        result = run([*ONE, "loss=mse", "seed=3"])
        assert compose("train", ["name=x", "seed=4"]).seed == 4
    assert (root.handlers, root.level) == (handlers, level)
    assert (result["options"]["loss"], result["seed"], result["status"]) == ("mse", 3, "finished")
    assert 0 <= result["test/acc"] <= 1
    folder = Path(result.pop("folder"))
    assert Run(folder).result() == result


def test_sweep_trains_every_composition_despite_failures_and_returns_all_in_order() -> None:
    command = [*ONE, "optimizer=sgd", "grad_clip=0", "optimizer.lr=1e30,0.01", "seed=range(3,4)"]
    results = diverged, finished = sweep(command)
    rates = [line.partition("=")[2] for result in results for line in result["overrides"] if ".lr=" in line]
    assert list(map(float, rates)) == [1e30, 0.01]
    (folder,) = {Path(result["folder"]).parent for result in results}
    assert folder.parent == Path.cwd() / "outputs"
    assert (folder / "table.md").exists()
    assert (finished["status"], finished["seed"]) == ("finished", 3)
    assert diverged["status"] == "diverged"
    assert re.search(r"\bnan\b.*\boptimizer\.lr\b", diverged["error"])
    assert "test/acc" not in diverged
    assert sweep(command) == results


@pytest.mark.parametrize(
    ("call", "words", "facts"),
    [
        (run, ["loss=foo"], "loss=foo"),
        (run, [*ONE, "loss=ce,mse"], "loss=ce,mse.*--multirun"),
        (run, ["--help"], r"run\(\).*--help"),
        (sweep, ["--help"], r"sweep\(\).*--help"),
        (run, "seed=1", re.escape("['seed=1']")),
        (run, [*ONE, "hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN.*--multirun"),
    ],
)
def test_an_impossible_run_is_a_value_error(call: Callable[..., object], words: list[str] | str, facts: str) -> None:
    with pytest.raises(ValueError, match=facts):
        call(words)
    assert not list(Path.cwd().iterdir())


def test_a_diverging_run_raises_and_leaves_the_process_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["notebook", "-f", "kernel.json"])
    Path("mine").mkdir()  # an existing empty folder is allowed
    with pytest.raises(RunFailedError, match=r"\bnan\b.* step 2\b.*\boptimizer\.lr\b") as error:
        run([*ONE, "optimizer=sgd", "grad_clip=0", "optimizer.lr=1e30", "bn=false", "hydra.run.dir=mine"])
    assert error.value.exit_code == 1
    assert sys.argv == ["notebook", "-f", "kernel.json"]
    assert "HYDRA_FULL_ERROR" not in os.environ
    diverged = Run("mine")
    status = diverged.status()
    assert (status["state"], status["hardware"]["device"]) == ("diverged", "cpu")
    assert status.get("git_revision") == provenance.git_revision()
    assert np.isnan(diverged.steps()["loss"]).tolist() == [False, True]  # the run stopped within that step
    assert not diverged.result_file.exists() and not diverged.checkpoints.exists()
