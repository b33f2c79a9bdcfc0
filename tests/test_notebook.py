"""The notebook as a reader runs it: a kernel of its own, on runs that are made here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lab import train

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "report.ipynb"


@pytest.mark.timeout(300)
def test_the_notebook_runs_on_small_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["data=synthetic", "data.num_train=60", "data.num_test=20", "model.filters=[2,2,2]", "batch_size=32"]
    made = train.sweep([*data, "loss=ce,mse", "epochs=2", "logger=none"])
    assert [result["status"] for result in made] == ["finished", "finished"]
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", str(NOTEBOOK)]
    environment = {
        **os.environ,
        "CIFAR_LAB_OUTPUTS": str(tmp_path / "outputs"),
        "PYTHONPATH": str(NOTEBOOK.parents[1]),
    }
    ran = subprocess.run(
        command, cwd=NOTEBOOK.parents[1], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_the_notebook_holds_no_logic_and_no_output() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(
        word in line.split() for cell in code for line in cell.splitlines() for word in ("def", "if", "while")
    )
    assert all(not cell.get("outputs") for cell in cells)
    # A sentence before each cell of code, but for those that go on with what was said.
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= len(code) - 1
