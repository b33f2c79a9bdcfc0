"""Disks that are full or cannot be written: file systems of a mount namespace that ends with the process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.runs import Run, read_checkpoint
from tests.conftest import TINY

ENTER = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
Mounted = Callable[..., subprocess.CompletedProcess[str]]


def _may_mount() -> bool:
    try:
        return subprocess.run([*ENTER, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Train in the folder `disk` that a shell command mounts; what is there at the end is copied to `left`."""
    if not _may_mount():
        pytest.skip("mounting is not permitted here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()

    def train(mount: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        script = f'{mount} && {{ "$@"; code=$?; cp -r disk left; exit $code; }}'
        line = [*ENTER, script, "sh", sys.executable, "-m", "cifar_lab.train", *TINY, "logger=none", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    return train


def test_a_folder_that_cannot_be_written_is_found_before_training(mounted: Mounted) -> None:
    done = mounted("mount --bind disk disk && mount -o remount,bind,ro disk", "hydra.run.dir=disk/run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: cannot write disk/run: Read-only file system; set hydra.run.dir= to a writable folder\n"
    )


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_whole(mounted: Mounted) -> None:
    # Room for two checkpoints of 2.0 MB, and not for a third beside them.
    done = mounted("mount -t tmpfs -o size=5500k none disk", "hydra.run.dir=disk/run", "epochs=20")
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: cannot write disk/run/")
    assert line.endswith(": No space left on device; free some space, then resume=disk/run goes on")
    run = Run("left/run")
    assert run.status()["state"] == "failed"
    assert not run.result_file.exists()
    assert {path.name for path in run.checkpoints.iterdir()} <= {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert read_checkpoint(run.last_checkpoint)["epoch"] >= 0
