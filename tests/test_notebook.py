"""The notebooks as a reader runs them: a kernel of its own, on runs that are made here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lab import train
from tests.landscape_runs import leave_probed

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOK, BATCH_NORM = FOLDER / "report.ipynb", FOLDER / "batch_norm.ipynb"


@pytest.mark.timeout(300)
def test_the_notebook_runs_on_small_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["data=synthetic", "data.num_train=60", "data.num_test=20", "model.filters=[2,2,2]", "batch_size=32"]
    made = train.sweep([*data, "loss=ce,mse", "epochs=2", "logger=none"])
    assert [result["status"] for result in made] == ["finished", "finished"]
    run_notebook(NOTEBOOK, tmp_path / "outputs")


@pytest.mark.timeout(300)
def test_the_notebook_on_batch_norm_runs_on_trained_losses_and_made_up_probes(
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
    assert {path.name for path in (tmp_path / "outputs" / "landscape").glob("*.png")} == {"band.png", "smoothness.png"}


def run_notebook(notebook: Path, outputs: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", str(notebook)]
    environment = {**os.environ, "CIFAR_LAB_OUTPUTS": str(outputs), "PYTHONPATH": str(FOLDER.parent)}
    ran = subprocess.run(
        command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


@pytest.mark.parametrize("notebook", [NOTEBOOK, BATCH_NORM], ids=lambda notebook: notebook.stem)
def test_the_notebooks_hold_no_logic_and_no_output(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(
        word in line.split() for cell in code for line in cell.splitlines() for word in ("def", "if", "while")
    )
    assert all(not cell.get("outputs") for cell in cells)
    # A sentence before each cell of code, but for those that go on with what was said.
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= len(code) - 1
