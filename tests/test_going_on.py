"""What `resume=` goes on with, and what it refuses."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cifar_lab.config import interpolations, resolved
from cifar_lab.runs import Run, read_checkpoint, write_checkpoint
from tests.comparison import differences
from tests.conftest import TINY, Compose, Outcome
from tests.faults import Fault, command

Lab = Callable[..., Outcome]
CONSTANT = (*TINY, "scheduler=constant", "trainer.precision=32-true")


@pytest.fixture(scope="module")
def _killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = command(*CONSTANT, "hydra.run.dir=run", fault=Fault("epoch", 2))
    assert ended.code == -9, ended
    return folder / "run"


@pytest.fixture
def killed(_killed: Path, lab: Lab, tmp_path: Path) -> Run:
    """A run of two epochs, killed after the second was saved, in the folder `run`."""
    shutil.copytree(_killed, tmp_path / "run")
    return Run("run")


@pytest.fixture
def begun(composed: Compose, lab: Lab) -> Callable[..., Run]:
    """Write a run's folder as it is before it trains, without a checkpoint."""

    def begin(*overrides: str) -> Run:
        config = composed(*overrides)
        run = Run("run")
        run.folder.mkdir()
        options = {line.partition("=")[0]: line.partition("=")[2] for line in overrides}
        run.start(resolved(config), overrides, options, interpolations(config))
        return run

    return begin


def _line(outcome: Outcome) -> str:
    (line,) = outcome.stderr.splitlines()
    return line


def test_what_is_typed_beside_resume_and_changes_numbers_is_refused_and_listed(killed: Run, lab: Lab) -> None:
    before = killed.status()
    outcome = lab("resume=run", "optimizer.lr=0.1", "loss=mse", "data.train_size=30")
    assert outcome.code == 2
    line = _line(outcome)
    assert line.startswith("error: resume=run: another run's settings: data.train_size (None in the run, 30.0 typed), ")
    assert "optimizer.lr (0.001 in the run, 0.1 typed)" in line
    assert "loss._target_ (torch.nn.CrossEntropyLoss in the run, cifar_lab.losses.MSELoss typed)" in line
    assert killed.status() == before


def test_what_is_typed_again_as_it_was_is_nothing_new(killed: Run, lab: Lab) -> None:
    assert lab("resume=run", "optimizer.lr=1e-3", "seed=0").code == 0


def test_the_seconds_of_a_run_are_those_of_all_its_attempts(killed: Run, lab: Lab) -> None:
    checkpoint = read_checkpoint(killed.last_checkpoint)
    assert 0 < checkpoint["times"]["seconds"] < 100
    times = {"seconds": 1000.0, "images": 10_000_000, "training_seconds": 500.0}
    write_checkpoint({**checkpoint, "times": times}, killed.last_checkpoint)
    assert lab("resume=run").code == 0
    result = killed.result()
    assert 1000 < result["seconds"] < 1100
    assert 19_000 < result["images_per_second"] <= 20_000  # the speed too, of what was trained before


def test_a_refusal_needs_no_torch(killed: Run) -> None:
    code = (
        "import sys; from cifar_lab.train import main\ntry: main()\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    line = [sys.executable, "-c", code, "resume=run", "seed=1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: resume=run: another run's settings: seed (0.0 in the run, 1.0 typed); leave them out, or start a new "
        "run\n"
    )


def test_folders_devices_and_loggers_may_differ(killed: Run, lab: Lab) -> None:
    outcome = lab("resume=run", "logger=csv", "trainer.enable_progress_bar=false")
    assert outcome.code == 0, outcome.stderr
    assert (killed.folder / "csv").exists()
    assert killed.config()["logger"]["_target_"].endswith("CSVLogger")
    assert killed.config()["optimizer"]["lr"] == 1e-3


def test_more_epochs_than_a_run_began_with_are_as_if_it_had_begun_with_them(killed: Run, lab: Lab) -> None:
    assert lab("resume=run").code == 0
    assert lab("resume=run", "epochs=3").code == 0  # of a finished one too
    assert killed.config()["epochs"] == 3
    assert lab(*CONSTANT, "epochs=3", "hydra.run.dir=whole").code == 0
    assert not differences(killed, Run("whole")) - {"overrides"}


@pytest.mark.parametrize(
    ("composition", "words"),
    [
        ((), "scheduler.T_max follows the number of epochs, 2 in the run"),
        (("scheduler=one_cycle",), "scheduler.total_steps follows the number of epochs"),
        (("scheduler=constant", "averaging=swa"), "averaging.epochs follows the number of epochs"),
    ],
)
def test_more_epochs_are_refused_where_something_follows_them(
    begun: Callable[..., Run], lab: Lab, composition: tuple[str, ...], words: str
) -> None:
    begun(*TINY, *composition)
    outcome = lab("resume=run", "epochs=9")
    assert outcome.code == 2
    assert words in _line(outcome)
    assert "only a schedule that does not depend on it can go on for more" in _line(outcome)


def test_snapshots_begin_where_a_run_that_goes_on_is_told_to_keep_them(killed: Run, lab: Lab) -> None:
    assert lab("resume=run", "callbacks=snapshots", "epochs=4").code == 0
    assert list(killed.snapshots()) == [3, 4]
    assert killed.config()["callbacks"]["snapshots"]["every_epochs"] == 1
    assert lab("resume=run", "callbacks.snapshots.every_epochs=2", "epochs=6").code == 0
    assert list(killed.snapshots()) == [3, 4, 6]
    assert lab("resume=run", "callbacks=none", "epochs=7").code == 0
    assert list(killed.snapshots()) == [3, 4, 6]


def test_fewer_epochs_are_refused(begun: Callable[..., Run], lab: Lab) -> None:
    begun(*CONSTANT, "epochs=5")
    assert "the run has 5, and can be given more, not fewer" in _line(lab("resume=run", "epochs=4"))


def test_a_folder_may_be_named_as_runs_are(killed: Run, lab: Lab) -> None:
    named = killed.folder.rename(killed.folder.parent / "loss=ce,seed=0 (1)")
    assert lab(f"resume={named.name}").code == 0
    assert Run(named).has_result()


def test_a_folder_without_a_run_or_a_checkpoint_is_refused(begun: Callable[..., Run], lab: Lab) -> None:
    assert _line(lab("resume=nowhere")) == "error: resume=nowhere: no run there; its folder holds .hydra/config.yaml"
    run = begun(*TINY)
    outcome = lab("resume=run")
    assert outcome.code == 2
    assert _line(outcome) == f"error: {run.folder.absolute()} has no checkpoint to go on from"


def test_auto_begins_where_there_is_nothing_and_says_when_all_is_done(lab: Lab) -> None:
    first = lab(*TINY, "epochs=1", "resume=auto")
    assert first.code == 0
    (run,) = first.runs
    assert run.folder.parent.name == "cnn"
    assert run.folder.name.endswith(run.result()["fingerprint"][:8])
    before = run.status()
    second = lab(*TINY, "epochs=1", "resume=auto")
    assert second.code == 0
    assert [again.folder for again in second.runs] == [run.folder]
    assert run.status() == before
    assert second.stdout.startswith("test accuracy")


def test_auto_goes_on_with_what_the_command_has_left(lab: Lab, tmp_path: Path) -> None:
    line = (*TINY, "resume=auto", "trainer.precision=32-true")
    assert command(*line, fault=Fault("epoch", 1)).code == -9
    outcome = lab(*line)
    assert outcome.code == 0
    (run,) = outcome.runs
    assert "epoch 1/2" not in outcome.stdout
    lab(*TINY, "trainer.precision=32-true", "hydra.run.dir=whole")
    assert not differences(run, Run("whole"))


def test_a_sweep_is_not_resumed_by_a_folder(begun: Callable[..., Run], lab: Lab) -> None:
    begun(*TINY)
    assert "a sweep goes on by itself" in _line(lab("-m", "resume=run", "seed=0,1"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(killed: Run, lab: Lab) -> None:
    whole = killed.last_checkpoint.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    killed.last_checkpoint.write_bytes(flipped)
    outcome = lab("resume=run")
    assert outcome.code == 0, outcome.stderr
    assert (
        f"{killed.last_checkpoint.absolute()} is damaged: its contents do not match their checksums" in outcome.stdout
    )
    assert "going on from previous.ckpt" in outcome.stdout
    lab(*CONSTANT, "hydra.run.dir=whole")
    assert not differences(killed, Run("whole"))


@pytest.mark.parametrize("contents", [b"", b"garbage", b"PK\x03\x04"], ids=["empty", "garbage", "beginning"])
def test_a_run_without_a_whole_checkpoint_is_refused_by_its_files_name(killed: Run, lab: Lab, contents: bytes) -> None:
    killed.previous_checkpoint.unlink()
    killed.last_checkpoint.write_bytes(contents)
    outcome = lab("resume=run")
    assert outcome.code == 2
    assert _line(outcome).startswith(f"error: {killed.last_checkpoint.absolute()} is damaged, or no checkpoint: ")


def test_a_run_goes_on_with_the_threads_that_it_began_with(killed: Run, lab: Lab) -> None:
    assert killed.status()["threads"] == 1
    killed.set_state("running", threads=3)
    outcome = lab("resume=run")
    assert outcome.code == 0
    assert killed.result()["hardware"]["threads"] == 3
    assert torch.get_num_threads() == 1  # the next job has its own


def test_a_diverged_job_is_final_unless_asked_for_and_the_sweep_goes_on(lab: Lab) -> None:
    line = ["-m", *TINY, "optimizer=sgd", "bn=false", "grad_clip=0", "optimizer.lr=1e30,0.01"]
    first = lab(*line)
    assert first.code == 1
    runs = {run.config()["optimizer"]["lr"]: run for run in first.runs}
    assert {lr: run.state() for lr, run in runs.items()} == {1e30: "diverged", 0.01: "finished"}
    error = "the loss is nan in step 2; try a lower optimizer.lr"
    assert runs[1e30].status()["error"] == error
    table = (runs[0.01].folder.parent / "table.md").read_text()
    (row,) = (line for line in table.splitlines() if line.startswith("| 1e+30") and "holdout" in line)
    assert [cell.strip() for cell in row.split("|")][2:4] == ["-", "-"]  # never a number
    assert f"diverged: {error}" in row
    start = runs[1e30].status()["start"]
    again = lab(*line)
    assert again.code == 1
    assert f"{runs[1e30].folder} has diverged: {error}; retry_diverged=true trains it again" in again.stderr
    assert runs[1e30].status()["start"] == start
    assert lab(*line, "retry_diverged=true").code == 1
    assert runs[1e30].status()["start"] > start


def test_a_failed_job_is_trained_again_unless_told_otherwise(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    line = ["-m", *TINY, "epochs=1", "seed=0,1"]
    with monkeypatch.context() as patch:
        patch.setattr("cifar_lab.classifier.Classifier.test_step", broken)
        assert lab(*line).code == 1
    left = lab(*line, "retry_failed=false")
    assert left.code == 1
    assert "has failed: no such kernel; retry_failed=true trains it again" in left.stderr
    again = lab(*line)
    assert again.code == 0
    assert "epoch 1/1" not in again.stdout  # what failed was the test: the trained epoch stands
