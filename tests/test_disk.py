"""Full and read-only disks, simulated by system calls that fail and by mounted file systems."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from cifar_lab.runs import Run, checkpoints, read_checkpoint, replacing
from tests.conftest import TINY, Lab, names, refusal

ENTER = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
Mounted = Callable[..., subprocess.CompletedProcess[str]]


def may_mount() -> bool:
    """Return whether this process may create a namespace and mount in it."""
    try:
        return subprocess.run([*ENTER, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_folder_that_cannot_be_created_is_detected_before_training(lab: Lab) -> None:
    Path("file").touch()
    refusal(lab(*TINY, "hydra.run.dir=file/run"), "file/run", os.strerror(errno.ENOTDIR), "hydra.run.dir=")


def test_a_write_without_space_ends_the_run_and_leaves_the_last_checkpoint_whole(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A file that runs out of space after half of what is written."""

        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def write(self, contents: memoryview) -> None:
            self.file.write(contents[: len(contents) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def filling(path: Path, mode: str, **options: Any) -> Iterator[Any]:
        with replacing(path, mode, **options) as file:
            yield Full(file) if path.name == "last.ckpt" and path.exists() else file

    monkeypatch.setattr(checkpoints, "replacing", filling)
    outcome = lab(*TINY, "logger=none", "hydra.run.dir=run")
    assert outcome.code == 1
    names(outcome.stderr, "run/checkpoints/last.ckpt", os.strerror(errno.ENOSPC), "resume=run ")
    run = Run("run")
    assert run.state() == "failed"
    assert not run.result_file.exists()
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert read_checkpoint(run.last_checkpoint)["epoch"] == 0


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Train in the folder `disk`, which a shell command mounts; the final content is copied to `left`."""
    if not may_mount():
        pytest.skip("mounting is not permitted here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()

    def train(mount: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        script = f'{mount} && {{ "$@"; code=$?; cp -r disk left; exit $code; }}'
        line = [*ENTER, script, "sh", sys.executable, "-m", "cifar_lab.train", *TINY, "logger=none", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    return train


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_whole(mounted: Mounted) -> None:
    # There is room for two checkpoints of 2.0 MB, but not for a third.
    done = mounted("mount -t tmpfs -o size=5500k none disk", "hydra.run.dir=disk/run", "epochs=20")
    assert done.returncode == 1, done
    names(done.stderr, "disk/run/", os.strerror(errno.ENOSPC), "resume=disk/run ")
    run = Run("left/run")
    assert run.status()["state"] == "failed"
    assert not run.result_file.exists()
    assert {path.name for path in run.checkpoints.iterdir()} <= {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert read_checkpoint(run.last_checkpoint)["epoch"] >= 0
