"""A short soak; `make soak` is the long one."""

from pathlib import Path

import pytest

from tests.soak import SHORT, soak


@pytest.mark.slow
def test_a_sweep_killed_ten_times_at_random_is_the_undisturbed_one_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tally = soak(kills=10, seed=0, sweep=SHORT)
    assert tally.kills == 10
    assert not tally.differences
