"""One job of a sweep that fails, whatever way it does, stops none of the others."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import TINY, Outcome

COMPONENTS = """
import sys
import numpy as np
import torch
from torch import nn

class Raises(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        raise RuntimeError("no such kernel")

class Exits(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        sys.exit(0)

class FillsMemory(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        return logits.mean() + np.ones(1 << 46).mean()

class FillsMemoryByTorch(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        return logits.mean() + torch.ones(1 << 46).mean()

class Diverges(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        return super().forward(logits, labels) * float("inf")
"""
FAULTS = {
    "raises": ("failed", "Raises", "RuntimeError: no such kernel", "no such kernel"),
    "exits": ("failed", "Exits", "SystemExit: 0", "SystemExit: 0"),
    "fills_memory": ("failed", "FillsMemory", "MemoryError: Unable to allocate", "Unable to allocate 512. TiB"),
    "fills_memory_by_torch": ("failed", "FillsMemoryByTorch", "RuntimeError: ", "DefaultCPUAllocator: "),
    "diverges": ("diverged", "Diverges", "DivergedError: ", "the loss is inf in step 1"),
}


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a module of components, and their options in `conf`."""
    folder = tmp_path_factory.mktemp("components")
    (folder / "faulty_lab.py").write_text(COMPONENTS)
    (folder / "conf" / "loss").mkdir(parents=True)
    for option, (_, name, _, _) in FAULTS.items():
        (folder / "conf" / "loss" / f"{option}.yaml").write_text(f"_target_: faulty_lab.{name}\n")
    return folder


def test_a_job_that_raises_exits_fills_the_memory_or_diverges_stops_no_other(
    components: Path, lab: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(components)
    losses = ["ce", *FAULTS, "mse"]
    outcome = lab(
        *("-m", "--config-dir", str(components / "conf"), "allow=[faulty_lab]", *TINY, "epochs=1"),
        f"loss={','.join(losses)}",
    )
    assert outcome.code == 1
    runs = {run.composition()["options"]["loss"]: run for run in outcome.runs}
    assert runs.keys() == set(losses)
    assert {runs[loss].state() for loss in ("ce", "mse")} == {"finished"}
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(FAULTS) + 1
    assert errors[-1].startswith("error: not every run of the sweep finished")
    assert "Traceback" not in outcome.stderr
    table = pd.read_csv(runs["ce"].folder.parent / "table.csv").set_index("loss")
    for (option, (state, _, raised, words)), line in zip(FAULTS.items(), errors, strict=False):
        run = runs[option]
        status = json.loads(run.status_file.read_text())
        assert status["state"] == state
        assert words in status["error"]
        assert raised in run.error_file.read_text()
        assert not run.result_file.exists()
        assert words in line
        assert line.endswith(f"the traceback is in {run.error_file}")
        assert table.loc[option, "state"].startswith(f"{state}: ")
        assert words in table.loc[option, "state"]
    assert table.loc[["ce", "mse"], "state"].tolist() == ["finished"] * 2
