"""Run folders that version 0.1.0 wrote, before its modules moved: `tests/old_runs`.

A sweep over `averaging=ema,none`, and three runs of `resume=auto`: a cnn, a narrow VGG-A with SWA, and one with the
gradient probe and snapshots that a signal stopped after its first epoch. Figures, and checkpoints of finished runs that
nothing reads again, are left out. Their configurations name components by the modules of that version.
"""

import json
import shutil
from pathlib import Path

import pytest

from cifar_lab import evaluate, status, table
from cifar_lab.runs import Run, find_runs
from cifar_lab.trained import load
from tests.conftest import Called, Lab

KEPT = Path(__file__).parent / "old_runs"


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Path:
    """A copy, where the commands that wrote it look for it."""
    return Path(shutil.copytree(KEPT, tmp_path / "outputs" / "old"))


def _run(folder: Path, word: str) -> Run:
    (run,) = [run for run in find_runs(folder) if word in run.composition()["overrides"]]
    return run


def _mtimes(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_they_are_listed_and_compared(folder: Path, called: Called) -> None:
    for command, entries in ((status, lambda told: told["runs"]), (table, list)):
        code, out, err = called(command.main, "--json", folder)
        assert code == 0, err
        rows = entries(json.loads(out))
        assert sorted(row["state"].partition(":")[0] for row in rows) == ["finished"] * 4 + ["interrupted"]
    assert {row["model"] for row in rows} == {"cnn", "vgg_a"}


@pytest.mark.parametrize("word", ["averaging=ema", "averaging=none", "averaging=swa", "model=cnn"])
def test_their_weights_give_the_recorded_accuracy(folder: Path, called: Called, word: str) -> None:
    run = _run(folder, word)
    code, _, err = called(evaluate.main, run.folder)
    assert code == 0, err
    evaluation = json.loads((run.folder / "evaluation" / "test" / "evaluation.json").read_text())
    assert evaluation["acc"] == pytest.approx(run.result()["test/acc"])


def test_what_was_stopped_is_resumed(folder: Path, lab: Lab) -> None:
    run = _run(folder, "probe=gradient")
    first = run.metrics().iloc[0]
    outcome = lab(f"resume={run.folder}")
    assert outcome.code == 0, outcome.err
    assert run.state() == "finished"
    assert run.metrics().iloc[0].equals(first)
    assert list(run.metrics()["epoch"]) == [1, 2]
    assert list(run.probes()["step"]) == [0, 1, 2, 4, 5]
    assert load(run.folder).architecture == "vgg_a bn=true"


@pytest.mark.parametrize("words", ["averaging=ema,none", "averaging=swa", "model=cnn"])
def test_the_same_command_trains_nothing_again(folder: Path, lab: Lab, words: str) -> None:
    run = _run(folder, words.partition(",")[0])
    before = _mtimes(run.folder)
    typed = [word for word in run.composition()["overrides"] if not word.startswith("averaging=ema")]
    outcome = lab("--multirun", *typed, words) if "," in words else lab(*typed, "resume=auto")
    assert outcome.code == 0, outcome.err
    assert len(outcome.runs) == 5
    assert _mtimes(run.folder) == before
