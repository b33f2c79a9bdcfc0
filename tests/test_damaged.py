"""Damaged files of a run: recomputed after a note if possible, else refused in one line that says what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar_lab.engines.handover import RunFailedError
from cifar_lab.runs import Run, write_checkpoint
from cifar_lab.runs.files import write_arrays
from cifar_lab.train.attempt import checkpoint_of
from tests.comparison import differences
from tests.conftest import Lab, Train, names, refusal
from tests.kinds_of_runs import FINISHED
from tests.suggestions import run_suggestion

WORDS = (*FINISHED, "hydra.run.dir=run")


@pytest.fixture
def stopped(trained: Train) -> Run:
    """A run of two epochs that was stopped after both were trained and saved."""
    run = trained(*FINISHED)
    run.result_file.unlink()
    shutil.rmtree(run.weights)
    run.set_state("interrupted")
    return run


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _drop_epoch(epoch: int) -> Callable[[Path], None]:
    def leave_out(path: Path) -> None:
        path.write_text(
            "".join(row for row in path.read_text().splitlines(keepends=True) if not row.startswith(f"{epoch},"))
        )

    return leave_out


# Per kind of damage: the file, the change, the checkpoint to resume from (None: refused), and text of the message.
DAMAGE: dict[str, tuple[str, Callable[[Path], object], str | None, str]] = {
    "steps, cut": ("steps.npz", _cut, None, "cannot be read"),
    "steps, gone": ("steps.npz", Path.unlink, None, "is missing"),
    "steps, others": ("steps.npz", lambda path: write_arrays(path, {"x": np.arange(3)}), None, "lacks loss"),
    "metrics, without the last row": ("metrics.csv", _drop_epoch(2), "previous.ckpt", "lacks epoch 2"),
    "metrics, without the first row": ("metrics.csv", _drop_epoch(1), None, "lacks epoch 1"),
    "metrics, gone": ("metrics.csv", Path.unlink, None, "is missing"),
    "metrics, empty": ("metrics.csv", lambda path: path.write_text(""), None, "cannot be read"),
    "metrics, others": ("metrics.csv", lambda path: path.write_text("epoch,x\n1,1\n2,1\n"), None, "lacks step"),
    "last, another": ("checkpoints/last.ckpt", lambda path: write_checkpoint({"a": 1}, path), "previous.ckpt", "is no"),
    "best, cut": ("checkpoints/best.ckpt", _cut, None, "is damaged"),
    "best, gone": ("checkpoints/best.ckpt", Path.unlink, None, "is missing"),
    "best, another": ("checkpoints/best.ckpt", lambda path: write_checkpoint({"epoch": -1}, path), None, "of epoch 0"),
    "status, types": ("status.json", lambda path: path.write_text('{"epoch": "1"}'), "last.ckpt", "cannot be read"),
    "status, threads": ("status.json", lambda path: path.write_text('{"threads": 0}'), "last.ckpt", "threads is 0"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_recomputed_from_an_earlier_checkpoint_or_refused(
    stopped: Run, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name, damage, expected, told = DAMAGE[kind]
    damage(stopped.folder / name)
    settings: dict[str, Any] = {**stopped.config(), "resume": str(stopped.folder)}
    if expected is None:
        with pytest.raises(RunFailedError, match=rf"{name}.*{told}.*hydra\.run\.dir=.* retrain=true"):
            checkpoint_of(stopped, settings, None)
        settings["resume"] = "auto"
    checkpoint = checkpoint_of(stopped, settings, None)
    (note, *kept) = capsys.readouterr().out.splitlines()
    assert note.startswith("note: ") and name in note and told in note
    assert (checkpoint and checkpoint.name) == expected
    if expected is None:
        (aside,) = stopped.folder.parent.glob("replaced/*")
        assert f"replaced/{aside.name}" in kept[0]
        assert Run(aside).checkpoints.exists() and not list(stopped.folder.iterdir())


def test_a_lost_row_is_recomputed_to_the_same_bits(stopped: Run, trained: Train, lab: Lab) -> None:
    _drop_epoch(2)(stopped.metrics_file)
    outcome = lab("resume=run")
    assert outcome.code == 0, outcome.stderr
    assert "metrics.csv lacks epoch 2; resuming from previous.ckpt" in outcome.stdout
    assert not differences(stopped, trained(*FINISHED, name="whole"))


@pytest.mark.parametrize("words", [("resume=run",), (*WORDS, "retrain=true")], ids=["resumed", "trained again"])
def test_a_run_that_cannot_resume_is_trained_again_by_the_suggested_command(
    stopped: Run, lab: Lab, words: tuple[str, ...]
) -> None:
    _cut(stopped.steps_file)
    line = refusal(lab("resume=run"), "steps.npz")
    run_suggestion(lab, line, FINISHED)
    (aside,) = Path("replaced").iterdir()
    assert Run(aside).status()["state"] == "interrupted"


@pytest.mark.parametrize("name", ["config.yaml", "composition.json"])
def test_a_damaged_configuration_of_a_finished_run_gives_the_command_that_trains_it_again(
    trained: Train, lab: Lab, name: str
) -> None:
    run = trained(*FINISHED)
    (run.folder / ".hydra" / name).write_text("[")
    refusal(lab("resume=run"), f"resume=run: run/.hydra/{name} cannot be read", "retrain=true trains it again")
    outcome = lab(*WORDS, "resume=auto")
    assert outcome.code == 2
    names(outcome.stderr, f"run/.hydra/{name} cannot be read", "hydra.run.dir=run and retrain=true")
    assert json.loads(run.result_file.read_text())["status"] == "finished"
