"""A short soak; `make soak` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.soak import SHORT, soak
from tests.test_disk import may_mount


@pytest.mark.slow
def test_a_sweep_killed_ten_times_at_random_equals_the_undisturbed_one_bitwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tally = soak(kills=10, seed=0, sweep=SHORT)
    assert tally.kills == 10
    assert not tally.differences


@pytest.mark.slow
def test_commands_killed_or_out_of_space_at_a_change_of_a_file_finish_when_run_again() -> None:
    if not may_mount():
        pytest.skip("mounting is not permitted here")
    line = [sys.executable, "-m", "tests.chaos", "--every", "40", "--only", "single"]
    done = subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
