"""`resume=`: which runs and settings it resumes with, and which it refuses."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cifar_lab.config import interpolations, resolved
from cifar_lab.engines.handover import RunFailedError, Turn
from cifar_lab.runs import Run, read_checkpoint, write_checkpoint
from cifar_lab.train import run as train
from cifar_lab.train.attempt import checkpoint_of, is_done
from cifar_lab.train.classifier import Classifier
from tests.comparison import differences
from tests.conftest import TINY, Compose, Lab, Train, refusal
from tests.faults import Fault, armed

Begin = Callable[..., Run]
PLAIN = (*TINY, "logger=none")
CONSTANT = (*PLAIN, "scheduler=constant", "trainer.precision=32-true")


def broken(*_: object) -> None:
    raise RuntimeError("unsupported")


@pytest.fixture(scope="module")
def _failed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "test_step", broken)
        with pytest.raises(RunFailedError):
            train([*CONSTANT, f"hydra.run.dir={folder}"])
    return folder


@pytest.fixture
def failed_run(_failed_folder: Path, lab: Lab, tmp_path: Path) -> Run:
    """A run of two epochs in the folder `run` that failed after both were trained and saved."""
    shutil.copytree(_failed_folder, tmp_path / "run")
    return Run("run")


@pytest.fixture
def begin_run(composed: Compose, lab: Lab) -> Begin:
    """Write a run's folder in its state before training, without a checkpoint."""

    def begin(*overrides: str) -> Run:
        config = composed(*overrides)
        run = Run("run")
        run.folder.mkdir()
        options = {line.partition("=")[0]: line.partition("=")[2] for line in overrides}
        run.start(resolved(config), overrides, options, interpolations(config))
        return run

    return begin


def test_overrides_that_change_numbers_are_refused_and_listed_on_resuming(failed_run: Run, lab: Lab) -> None:
    before = failed_run.status()
    line = refusal(lab("resume=run", "optimizer.lr=0.1", "loss=mse", "data.train_size=30"), "resume=run")
    for facts in (
        ("data.train_size", "None", "30.0"),
        ("optimizer.lr", "0.001", "0.1"),
        ("loss._target_", "torch.nn.CrossEntropyLoss", "cifar_lab.losses.MSELoss"),
    ):
        positions = [line.index(fact) for fact in facts]
        assert positions == sorted(positions)
    assert failed_run.status() == before


def test_a_refusal_does_not_import_torch(failed_run: Run) -> None:
    code = (
        "import sys; from cifar_lab.train import main\ntry: main()\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    line = [sys.executable, "-c", code, "resume=run", "seed=1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    refusal((done.returncode, done.stdout, done.stderr), "resume=run", "seed", "0.0", "1.0")


def test_a_run_resumes_with_its_settings_and_seconds_and_typed_threads(failed_run: Run, lab: Lab) -> None:
    run = Run(failed_run.folder.rename("loss=ce,seed=0 (1)"))  # named as sweeps name folders
    checkpoint = read_checkpoint(run.last_checkpoint)
    assert 0 < checkpoint["times"]["seconds"] < 100
    times = {"seconds": 1000.0, "images": 10_000_000, "training_seconds": 500.0}
    write_checkpoint({**checkpoint, "times": times}, run.last_checkpoint)
    assert run.status()["threads"] == 1
    run.set_state("running", threads=3)
    words = ("optimizer.lr=1e-3", "seed=0", "logger=csv", "trainer.enable_progress_bar=false")
    outcome = lab(f"resume={run.folder}", *words)
    assert outcome.code == 0, outcome.stderr
    assert not run.error_file.exists()
    assert run.config()["optimizer"]["lr"] == 1e-3
    assert run.config()["logger"]["csv"]["_target_"].endswith("CSVLogger")
    assert (run.folder / "csv").exists()
    result = run.result()
    assert 1000 < result["seconds"] < 1100
    assert 19_000 < result["images_per_second"] <= 20_000  # the speed includes the earlier part of the training
    assert result["hardware"]["threads"] == 3
    assert torch.get_num_threads() == 1  # the next job uses its own number of threads


@pytest.mark.parametrize(
    ("composition", "epochs", "facts"),
    [
        (("scheduler=one_cycle", "averaging=swa"), 9, ["scheduler.total_steps", "averaging.epochs"]),
        (("scheduler=constant", "epochs=5"), 4, [5]),
        (("scheduler=constant", "averaging=lookahead", "averaging.power=3"), 9, ["averaging.power"]),
        pytest.param((), 9, ["scheduler.T_max"], marks=pytest.mark.slow),
        pytest.param(("scheduler=one_cycle",), 9, ["scheduler.total_steps"], marks=pytest.mark.slow),
        pytest.param(("scheduler=constant", "averaging=swa"), 9, ["averaging.epochs"], marks=pytest.mark.slow),
    ],
)
def test_different_epochs_are_refused_if_settings_follow_them_or_they_are_fewer(
    begin_run: Begin, lab: Lab, composition: tuple[str, ...], epochs: int, facts: list[object]
) -> None:
    begin_run(*TINY, *composition)
    refusal(lab("resume=run", f"epochs={epochs}"), f"epochs={epochs}", *facts)


def test_a_resumed_run_keeps_snapshots_as_requested(failed_run: Run, lab: Lab) -> None:
    assert lab("resume=run", "callbacks=snapshots", "callbacks.snapshots.every_epochs=2", "epochs=4").code == 0
    assert list(failed_run.snapshots()) == [4]
    assert lab("resume=run", "callbacks.snapshots.every_epochs=1", "epochs=6").code == 0  # a finished run as well
    assert list(failed_run.snapshots()) == [4, 5, 6]
    assert failed_run.config()["callbacks"]["snapshots"]["every_epochs"] == 1
    assert lab("resume=run", "callbacks=none", "epochs=7").code == 0
    assert list(failed_run.snapshots()) == [4, 5, 6]
    assert failed_run.config()["epochs"] == 7


def test_a_folder_without_a_run_or_checkpoint_is_refused_and_a_sweep_refuses_any_folder(
    begin_run: Begin, lab: Lab
) -> None:
    refusal(lab("resume=nowhere"), "resume=nowhere", ".hydra/config.yaml")
    run = begin_run(*TINY)
    refusal(lab("resume=run"), run.folder.absolute())
    refusal(lab("-m", "resume=run", "seed=0,1"), "resume=")


def test_auto_starts_resumes_or_skips_a_run_as_needed(lab: Lab) -> None:
    line = (*PLAIN, "resume=auto")
    with armed(Fault("epoch", 1, signal.SIGTERM)):
        first = lab(*line)
    (run,) = first.runs
    assert (first.code, run.state(), run.folder.parent.name) == (143, "interrupted", "cnn")
    second = lab(*line)
    assert second.code == 0
    assert [again.folder for again in second.runs] == [run.folder]
    assert " 1/2 " not in second.stdout and " 2/2 " in second.stdout  # epochs
    assert run.folder.name.endswith(run.result()["fingerprint"][:8])
    before = run.status()
    third = lab(*line)
    assert third.code == 0
    assert run.status() == before
    assert " 2/2 " not in third.stdout and f"{run.result()['test/acc']:.2%}" in third.stdout


def test_a_damaged_checkpoint_is_named_and_the_previous_one_resumes_to_the_same_bits(
    failed_run: Run, lab: Lab, trained: Train
) -> None:
    whole = failed_run.last_checkpoint.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    failed_run.last_checkpoint.write_bytes(flipped)
    outcome = lab("resume=run", "epochs=3")
    assert outcome.code == 0, outcome.stderr
    (note,) = (line for line in outcome.stdout.splitlines() if line.startswith("note: "))
    assert str(failed_run.last_checkpoint.absolute()) in note and "previous.ckpt" in note
    assert not differences(failed_run, trained(*CONSTANT, "epochs=3", name="whole")) - {"overrides"}


@pytest.mark.parametrize("contents", [b"", b"garbage", b"PK\x03\x04"], ids=["empty", "garbage", "beginning"])
def test_a_run_without_an_undamaged_checkpoint_is_refused_by_file_name(failed_run: Run, contents: bytes) -> None:
    failed_run.previous_checkpoint.unlink()
    failed_run.last_checkpoint.write_bytes(contents)
    with pytest.raises(RunFailedError, match=r"run/checkpoints/last\.ckpt") as caught:
        checkpoint_of(failed_run, {"resume": "run"}, None)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_failed_and_diverged_runs_are_retrained_only_if_allowed(begin_run: Begin, state: str) -> None:
    run, job = begin_run(*TINY), Turn(1, 1, later=0)
    run.fail(state, RuntimeError("unsupported"))
    config = {**run.config(), "retry_diverged": True}
    assert not is_done(run, config, job)
    with pytest.raises(RunFailedError, match=f"unsupported.*\\bretry_{state}=true\\b") as caught:
        is_done(run, {**config, f"retry_{state}": False}, job)
    assert str(run.folder) in str(caught.value)


@pytest.mark.parametrize("how", ["refused", "failed", "interrupted"])
def test_a_finished_run_stays_unchanged_if_more_epochs_fail(
    trained: Train, lab: Lab, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    words = ("scheduler=one_cycle", "scheduler.total_steps=18") if how == "refused" else ("scheduler=constant",)
    run = trained(*PLAIN, *words)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    if how != "refused":
        error = RuntimeError("no") if how == "failed" else KeyboardInterrupt()
        monkeypatch.setattr(Classifier, "training_step", lambda *_: (_ for _ in ()).throw(error))
    outcome = lab(f"resume={run.folder}", "epochs=3")
    assert outcome.code == {"refused": 2, "failed": 1, "interrupted": 130}[how], outcome.stderr
    assert how != "refused" or "scheduler.total_steps=18" in outcome.stderr
    after = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path != run.error_file}
    # The rows of metrics.csv may have different line endings.
    assert {path.name for path in before if before[path].split() != after.get(path, b"").split()} <= {"run.lock"}
    monkeypatch.undo()
    assert run.result()["epochs"] == 2 and run.status()["state"] == "finished"
