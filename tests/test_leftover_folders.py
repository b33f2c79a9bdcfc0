"""Folders left by a full disk, a kill or a different process: the same command cleans them up and resumes."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.machine import writers
from cifar_lab.runs import Run, replacing
from cifar_lab.runs import run as written
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.outcome import keeping_finished, recording_outcome
from tests.conftest import Lab, Train, names
from tests.faults import ENDED, unfinished
from tests.kinds_of_runs import FINISHED


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_could_not_begin_on_a_full_disk_begins_once_there_is_space(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*FINISHED, "epochs=1", "hydra.run.dir=run")
    with monkeypatch.context() as patch:
        patch.setattr(written, "replacing", full)
        outcome = lab(*words)
    assert outcome.code == 1
    names(outcome.stderr, "free some space, then the same command starts it again")
    assert lab(*words).code == 0


def test_a_run_without_space_for_a_new_file_still_records_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.start({})
    monkeypatch.setattr(written, "replacing", full)
    run.fail("failed", OSError("no room"))
    assert run.status()["state"] == "failed"
    assert run.status()["error"] == "no room"


def test_a_restart_that_was_stopped_anywhere_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, left = Run(tmp_path / "run"), 0
    for stop in range(100):
        run.folder.mkdir(exist_ok=True)
        run.start({})
        for folder in (run.checkpoints, run.weights):
            folder.mkdir()
            (folder / "file").touch()
        run.metrics_file.touch()
        run.set_state("failed")
        left = stop
        with monkeypatch.context() as patch:
            _stop_after(stop, patch)
            try:
                run.start({})
                break
            except KeyboardInterrupt:
                pass
        run.start({})
        assert {path.name for path in run.folder.iterdir()} == {".hydra", "status.json"}
    assert 5 < left < 99


def _stop_after(count: int, patch: pytest.MonkeyPatch) -> None:
    """Raise at the `count`-th change of files in this thread and at all later ones, as if the process were killed."""
    done = iter(range(10_000))

    def stopping(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            if next(done) >= count:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return changed

    for name in ("unlink", "rmdir", "replace", "mkdir"):
        patch.setattr(os, name, stopping(getattr(os, name)))


@pytest.fixture
def dead() -> dict[str, Any]:
    """Content of a lock whose process has ended."""
    return {**writers.identity(), "process": ENDED}


def test_a_command_that_reuses_a_finished_run_removes_files_of_killed_processes(
    trained: Train, lab: Lab, dead: dict[str, Any]
) -> None:
    run = trained(*FINISHED)
    files = {path.relative_to(run.folder) for path in run.folder.rglob("*")}
    run.lock_file.write_text(json.dumps(dead))
    (run.folder / ".run.lock.0123abcd").write_text(json.dumps(dead))
    for folder in (run.folder, run.checkpoints):
        (folder / unfinished("status.json")).touch()
    assert lab(*FINISHED, "hydra.run.dir=run", "resume=auto").code == 0
    assert {path.relative_to(run.folder) for path in run.folder.rglob("*")} == files


def test_a_lock_that_cannot_be_removed_does_not_fail_a_finished_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def refusing(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "run.lock":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    outcome = lab(*FINISHED, "epochs=1", "hydra.run.dir=run")
    assert (outcome.code, outcome.stderr) == (0, "")


def test_a_folder_without_space_for_a_lock_gives_a_one_line_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.runs.locks.json.dump", full)
    outcome = lab(*FINISHED, "hydra.run.dir=run")
    assert outcome.code == 1
    names(outcome.stderr.splitlines()[-1], "run.lock", "free some space, then run the same command again")
    assert "bug" not in outcome.stderr


@pytest.mark.parametrize("moved", [True, False])
def test_a_folder_moved_or_removed_during_training_gives_a_one_line_error_and_is_not_recreated(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    step = Classifier.training_step

    def taking_away(classifier: Classifier, *arguments: Any) -> Any:
        if classifier.global_step == 10 and Path("run").exists():  # in the second epoch
            Path("run").rename("elsewhere") if moved else shutil.rmtree("run")
        return step(classifier, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", taking_away)
        outcome = lab(*FINISHED, "hydra.run.dir=run")
    assert outcome.code == 1
    names(outcome.stderr, "run was removed or moved during training", "resume=")
    assert not Path("run").exists()
    if moved:
        Path("elsewhere/run.lock").unlink()  # this process holds the lock, and is alive
        assert lab("resume=elsewhere").code == 0


def test_unfinished_files_of_other_programs_stay(tmp_path: Path) -> None:
    (tmp_path / ".movie.mkv.part").touch()
    (tmp_path / ".torrent.part").mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    with replacing(tmp_path / "table.csv") as file:
        file.write("x")
    assert {path.name for path in tmp_path.iterdir()} == {".movie.mkv.part", ".torrent.part", "table.csv"}


def test_a_finished_run_with_a_damaged_status_is_moved_aside_instead_of_removed(trained: Train, lab: Lab) -> None:
    run = trained(*FINISHED)
    run.status_file.write_text("{")
    assert lab(*FINISHED, "hydra.run.dir=run").code == 0
    (aside,) = Path("replaced").iterdir()
    assert (aside / "result.json").exists() and list((aside / "weights").iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_a_finished_run_is_restored_if_a_full_disk_ends_more_epochs(
    trained: Train, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    run = trained(*FINISHED)
    before = run.result_file.read_bytes()
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))

    def goes_on() -> None:
        with keeping_finished(run):
            run.result_file.unlink()
            run.set_state("failed")
            monkeypatch.setattr("cifar_lab.runs.files.tempfile.mkstemp", full)
            raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        goes_on()
    assert run.result_file.read_bytes() == before
    assert run.status()["state"] == "finished"
    assert not list(run.folder.rglob("*.kept"))


def test_a_failure_after_a_run_has_finished_leaves_it_finished(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(*FINISHED)
    result = run.result()
    run.result_file.unlink()
    with recording_outcome(run, in_sweep=False):
        run.finish(result)
        raise RuntimeError("no end")
    assert run.status()["state"] == "finished"
    assert "no end" in capsys.readouterr().err
