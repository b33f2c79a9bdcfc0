"""A job of a sweep that fails, in whatever way, does not stop the others."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import TINY, Lab, names

COMPONENTS = """
import sys
from pathlib import Path
import numpy as np
from torch import nn

class Raises(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        raise RuntimeError("unsupported")

class Exits(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        if Path("repaired").exists():
            return super().forward(logits, labels)
        sys.exit(0)

class FillsMemory(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        return logits.mean() + np.ones(1 << 46).mean()

class Diverges(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        return super().forward(logits, labels) * float("inf")
"""
# Per option: the state that it leaves, its class, the exception, and text of the message.
FAULTS = {
    "raises": ("failed", "Raises", "RuntimeError: ", "unsupported"),
    "exits": ("failed", "Exits", "SystemExit: 0", "SystemExit: 0"),
    "fills_memory": ("failed", "FillsMemory", "MemoryError: ", " 512. TiB"),
    "diverges": ("diverged", "Diverges", "DivergedError: ", " inf "),
}


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a module of components, and their options in `conf`."""
    folder = tmp_path_factory.mktemp("components")
    (folder / "faulty_lab.py").write_text(COMPONENTS)
    (folder / "conf" / "loss").mkdir(parents=True)
    for option, (_, name, _, _) in FAULTS.items():
        (folder / "conf" / "loss" / f"{option}.yaml").write_text(f"_target_: faulty_lab.{name}\n")
    return folder


@pytest.mark.parametrize(
    "losses",
    [
        ["exits", "diverges", "ce"],
        pytest.param(["ce", *FAULTS, "mse"], marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_a_failing_job_of_any_kind_stops_no_other_and_is_trained_again(
    components: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, losses: list[str]
) -> None:
    monkeypatch.syspath_prepend(components)
    words = ("-m", "--config-dir", str(components / "conf"), "allow=[faulty_lab]", f"loss={','.join(losses)}")
    words += (*TINY, "logger=none", "epochs=1")
    outcome = lab(*words)
    assert outcome.code == 1
    runs = {run.composition()["options"]["loss"]: run for run in outcome.runs}
    assert runs.keys() == set(losses)
    faulty, whole = [loss for loss in losses if loss in FAULTS], [loss for loss in losses if loss not in FAULTS]
    assert {runs[loss].state() for loss in whole} == {"finished"}
    *errors, last = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    names(last, runs[faulty[0]].folder)
    assert "Traceback" not in outcome.stderr
    markdown = (runs[losses[0]].folder.parent / "table.md").read_text(encoding="utf-8").splitlines()
    table = pd.read_csv(runs[losses[0]].folder.parent / "table.csv").set_index("loss")
    for option, line in zip(faulty, errors, strict=True):
        state, _, raised, told = FAULTS[option]
        run = runs[option]
        status = json.loads(run.status_file.read_text(encoding="utf-8"))
        assert status["state"] == state
        assert told in status["error"]
        assert raised in run.error_file.read_text(encoding="utf-8")
        assert not run.result_file.exists()
        names(line, told, run.error_file)
        assert state in table.loc[option, "state"] and told in table.loc[option, "state"]
        (row,) = (row for row in markdown if row.startswith(f"| {option} ") and "holdout" in row)
        assert [cell.strip() for cell in row.split("|")][2:4] == ["-", "-"]  # never a number
    assert table.loc[whole, "state"].tolist() == ["finished"] * len(whole)

    Path("repaired").touch()
    before = runs["diverges"].status()
    again = lab(*words)
    assert again.code == 1
    assert runs["exits"].state() == "finished"
    assert runs["diverges"].status() == before  # a diverged run would diverge again
    (line,) = (line for line in again.stderr.splitlines()[:-1] if str(runs["diverges"].folder) in line)
    names(line, before["error"], "retry_diverged=true")
