"""The notebooks as a reader runs them, on runs made here: in this process, and in their own kernel."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cifar_lab import train
from tests.conftest import CHECKOUT, TINY, Train
from tests.landscape_runs import leave_band, leave_probed

FOLDER = CHECKOUT / "notebooks"
NOTEBOOK, BATCH_NORM = FOLDER / "report.ipynb", FOLDER / "batch_norm.ipynb"
PICTURES = {"band.png", "smoothness.png"}


def cells(notebook: Path) -> list[str]:
    """Return the code of each cell."""
    contents = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in contents if cell["cell_type"] == "code"]


def run_cells(notebook: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run a notebook's code without its magics in this process, and return the value that each cell shows."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv("CIFAR_LAB_OUTPUTS", str(outputs))
    monkeypatch.delenv("CIFAR_LAB_FIGURES", raising=False)
    shown, names = [], {"__name__": "__main__"}
    with pd.option_context("display.max_colwidth", None):  # the notebook sets this option
        for cell in cells(notebook):
            code = ast.parse("\n".join(line for line in cell.splitlines() if not line.startswith("%")))
            last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
            exec(compile(code, notebook.name, "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
    return shown


def test_the_notebook_reads_a_run(trained: Train, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    run = trained(*TINY, "logger=none")
    comparison, _, curves, accuracies, _, claims = run_cells(NOTEBOOK, run.folder.parent, monkeypatch)
    assert len(comparison) == 1
    assert curves.axes and accuracies.axes
    assert len(claims) > 0
    assert f"{run.folder.parent.name}/{run.folder.name}\n" in capfd.readouterr().out


def test_the_notebook_on_batch_norm_reads_losses_and_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_band(tmp_path / "study-bn_landscape")
    leave_probed(tmp_path / "study-bn_smoothness")
    run_cells(BATCH_NORM, tmp_path, monkeypatch)
    assert {path.name for path in (tmp_path / "landscape").glob("*.png")} == PICTURES


@pytest.mark.slow
def test_a_kernel_runs_the_notebook_on_small_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = train.sweep([*TINY, "loss=ce,mse", "logger=none"])
    assert [result["status"] for result in made] == ["finished", "finished"]
    run_notebook(NOTEBOOK, tmp_path / "outputs")


@pytest.mark.slow
def test_a_kernel_runs_the_notebook_on_batch_norm_on_trained_losses_and_made_up_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["data=synthetic", "data.num_train=60", "data.num_test=20", "batch_size=32", "epochs=1", "logger=none"]
    network = ["model=vgg_a", "model.stages=[[2],[2],[2],[2],[2]]", "model.hidden=2", "model.init=xavier"]
    axes = ["bn=true,false", "optimizer.lr=1e-3,2e-3", "name=study-bn_landscape"]
    made = train.sweep([*data, *network, *axes])
    assert [result["status"] for result in made] == ["finished"] * 4
    leave_probed(tmp_path / "outputs" / "study-bn_smoothness")
    run_notebook(BATCH_NORM, tmp_path / "outputs")
    assert {path.name for path in (tmp_path / "outputs" / "landscape").glob("*.png")} == PICTURES


def run_notebook(notebook: Path, outputs: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", str(notebook)]
    environment = {**os.environ, "CIFAR_LAB_OUTPUTS": str(outputs), "PYTHONPATH": str(FOLDER.parent)}
    ran = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


@pytest.mark.parametrize("notebook", [NOTEBOOK, BATCH_NORM], ids=lambda notebook: notebook.stem)
def test_the_notebooks_hold_no_logic_and_no_output(notebook: Path) -> None:
    contents, code = json.loads(notebook.read_text(encoding="utf-8"))["cells"], cells(notebook)
    assert not any(
        word in line.split() for cell in code for line in cell.splitlines() for word in ("def", "if", "while")
    )
    assert all(not cell.get("outputs") for cell in contents)
    # Every code cell but one follows a sentence of its own.
    assert sum(cell["cell_type"] == "markdown" for cell in contents) >= len(code) - 1
