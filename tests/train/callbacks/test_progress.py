import io
import re
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from torch import nn

from cifar_lab.engines.handover import Turn
from cifar_lab.terminal.progress import span, with_progress
from cifar_lab.train.callbacks import Progress, Throughput, forecast
from cifar_lab.train.classifier import Classifier
from tests.train.fits import fit, images, network


def classifier() -> Classifier:
    return Classifier(network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.01))


def progress_output(*, terminal: bool) -> str:
    """Return the output of two epochs of twelve steps."""
    console = Console(file=(output := io.StringIO()), force_terminal=terminal, width=200, legacy_windows=False)
    throughput = Throughput()
    fit(classifier(), throughput, Progress(throughput, console), data=images(100, 8), max_epochs=2)
    return output.getvalue()


def test_without_a_terminal_each_epoch_is_a_line() -> None:
    first, second = progress_output(terminal=False).splitlines()
    figures = r"\d\.\d{4}\b.* \d+\.\d\d%.* \d+\.\d\d%.* (-|[\d,]+) images/s .*\d\.\d s\b"
    assert re.search(rf"\b1/2\b.* {figures}.* \d+:\d\d\b", first)
    assert re.search(rf"\b2/2\b.* {figures}$", second)


def test_long_epochs_show_their_steps_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.terminal.progress.LINE_SECONDS", 0.0)
    figures = r"\b2/2\b.* 3/12\b.* \d\.\d{4}\b.* \d+\.\d\d%.* [\d,]+ images/s .*\d+:\d\d\b"
    assert re.search(figures, progress_output(terminal=False))


def test_a_pipe_gets_no_control_characters_even_if_colours_are_forced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cifar_lab.terminal.progress.LINE_SECONDS", 0.0)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    throughput = Throughput()
    fit(classifier(), throughput, Progress(throughput), data=images(100, 8), max_epochs=1)
    assert list(with_progress([1, 2], "numbers")) == [1, 2]
    out, err = capsys.readouterr()
    assert "epoch 1/1" in out
    assert "\x1b" not in out + err


def test_a_terminal_gets_a_bar_over_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.train.callbacks.progress._BAR_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal has no bar
    output = progress_output(terminal=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "━" in plain
    assert "epoch 2/2 validation 1/1" in plain
    assert len(re.findall(r"epoch \d/2  loss", plain)) == 2
    assert "\x1b[?25h" in output  # the cursor is visible again


def _forecast(monkeypatch: pytest.MonkeyPatch, turn: Turn | None = None, seconds: float = 100.0, **options: Any) -> str:
    """Return the forecast of two epochs of 90 images in batches of 4, with steps of `seconds` each."""
    now = [0.0]
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: now[0])
    console = Console(file=(output := io.StringIO()), width=200)

    class Slow(L.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            now[0] += seconds

    fit(classifier(), Slow(), Progress(Throughput(), console, turn=turn), data=images(100, 4), **options)
    return next((line for line in output.getvalue().splitlines() if "measured" in line), "")


def test_a_run_prints_a_forecast_after_its_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # 26 of 46 steps of 1 s are left, then 10 and 2 x 20 images at a third of a step's 0.25 s each.
    line = _forecast(monkeypatch, seconds=1.0, max_epochs=2)
    assert re.fullmatch(r"about 30 s: 1\.13 epochs of 90 images at 4 images/s \(measured in the first 20 steps\)", line)


def test_slow_steps_are_timed_for_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "measured in the first 3 steps" in _forecast(monkeypatch, seconds=100.0)


def test_a_short_run_has_no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _forecast(monkeypatch, seconds=0.01, max_epochs=2) == ""


def test_a_time_limit_shortens_the_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    line = _forecast(monkeypatch, max_time="00:00:10:00")
    assert re.match(r"about (9|10) min: ", line)
    assert "trainer.max_time" in line


def test_the_first_job_of_a_sweep_forecasts_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn.of(0, [1.0, 2.0, 0.0, 6.0])
    line = _forecast(monkeypatch, turn, seconds=100.0)
    left = 20 * 100 + 100 / 4 / 3 * 2 * 20
    own = left + 300
    assert line.startswith(f"3 jobs, about {span(left + 8 * own)}; this one about {span(left)}: ")
    assert _forecast(monkeypatch, Turn.of(1, [0.0, 2.0, 3.0], each=5.0)) == ""  # earlier jobs have printed a forecast
