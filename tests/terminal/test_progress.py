import re

import pytest

from cifar_lab.terminal import progress
from cifar_lab.terminal.progress import clock, span, with_progress
from tests.conftest import on_a_terminal


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_a_clock_shows_hours_only_if_there_are_any(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45.2, "45 s"), (720, "12 min"), (7_799, "2 h 10 min"), (7_170, "2 h 0 min"), (2.2 * 86_400, "2 d 5 h")],
)
def test_a_forecast_has_at_most_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_file_gets_a_line_every_half_minute_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    for _ in with_progress(range(10), "images [a]"):
        now[0] += 12
    told = ((3, "1:24"), (6, "0:48"), (9, "0:12"))
    lines = [f"images [a]: {done}0% done, {left} left" for done, left in told]
    assert capsys.readouterr().err.splitlines() == lines


def test_work_of_a_few_seconds_prints_nothing_to_a_file_and_leaves_nothing_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(with_progress([1, 2], "numbers")) == [1, 2]
    assert capsys.readouterr() == ("", "")
    on_a_terminal(monkeypatch)
    assert list(with_progress([1, 2], "numbers [bold]")) == [1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "numbers [bold]" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err)
    assert err.rstrip().endswith("\x1b[2K")  # the bar is erased
