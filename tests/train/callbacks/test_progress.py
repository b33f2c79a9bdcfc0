import io
import re
from functools import partial

import pytest
import torch
from rich.console import Console
from torch import nn

from cifar_lab.terminal.printing import shown
from cifar_lab.train.callbacks import Progress, Throughput
from cifar_lab.train.classifier import Classifier
from tests.train.fits import fit, images, network


def classifier() -> Classifier:
    return Classifier(network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.01))


def printed(*, terminal: bool) -> str:
    """What two epochs of twelve steps print."""
    console = Console(file=(output := io.StringIO()), force_terminal=terminal, width=200, legacy_windows=False)
    throughput = Throughput()
    fit(classifier(), throughput, Progress(throughput, console), data=images(100, 8), max_epochs=2)
    return output.getvalue()


def test_where_there_is_no_terminal_each_epoch_is_a_line() -> None:
    first, second = printed(terminal=False).splitlines()
    figures = r"\d\.\d{4}\b.* \d+\.\d\d%.* \d+\.\d\d%.* (-|[\d,]+) images/s .*\d\.\d s\b"
    assert re.search(rf"\b1/2\b.* {figures}.* \d+:\d\d\b", first)
    assert re.search(rf"\b2/2\b.* {figures}$", second)


def test_long_epochs_show_their_steps_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.train.callbacks.progress._LINE_SECONDS", 0.0)
    figures = r"\b2/2\b.* 3/12\b.* \d\.\d{4}\b.* \d+\.\d\d%.* [\d,]+ images/s .*\d+:\d\d\b"
    assert re.search(figures, printed(terminal=False))


def test_a_pipe_gets_no_control_characters_where_colours_are_forced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cifar_lab.train.callbacks.progress._LINE_SECONDS", 0.0)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    throughput = Throughput()
    fit(classifier(), throughput, Progress(throughput), data=images(100, 8), max_epochs=1)
    assert list(shown([1, 2], "numbers")) == [1, 2]
    out, err = capsys.readouterr()
    assert "epoch 1/1" in out
    assert "\x1b" not in out + err


def test_a_terminal_gets_a_bar_over_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.train.callbacks.progress._BAR_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")  # not a dumb one, which has no bar
    output = printed(terminal=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "━" in plain
    assert re.search(r"2/2\b.*\b12/12\b", plain)
    assert len(re.findall(r"epoch \d/2  loss", plain)) == 2
    assert "\x1b[?25h" in output  # the cursor is back
