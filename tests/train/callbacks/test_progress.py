import io
import re
from functools import partial

import lightning as L
import pytest
import torch
from rich.console import Console
from torch import nn

from cifar_lab.data.datamodule import SyntheticDataModule
from cifar_lab.train.callbacks import Progress, Throughput
from cifar_lab.train.classifier import Classifier


def fit(console: Console) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    classifier = Classifier(model, nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.01))
    throughput = Throughput()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[throughput, Progress(throughput, console)],
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(classifier, SyntheticDataModule(100, 20, batch_size=8))


def test_where_there_is_no_terminal_each_epoch_is_a_line() -> None:
    output = io.StringIO()
    fit(Console(file=output, force_terminal=False, width=200))
    first, second = output.getvalue().splitlines()
    figures = r"\d\.\d{4}\b.* \d+\.\d\d%.* \d+\.\d\d%.* (-|[\d,]+) images/s .*\d\.\d s\b"
    assert re.search(rf"\b1/2\b.* {figures}.* \d+:\d\d\b", first)
    assert re.search(rf"\b2/2\b.* {figures}$", second)


def test_long_epochs_show_their_steps_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.train.callbacks.progress._LINE_SECONDS", 0.0)
    output = io.StringIO()
    fit(Console(file=output, force_terminal=False, width=200))
    assert re.search(
        r"\b2/2\b.* 3/12\b.* \d\.\d{4}\b.* \d+\.\d\d%.* [\d,]+ images/s .*\d+:\d\d\b",
        output.getvalue(),
    )


def test_a_terminal_gets_a_bar_over_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.train.callbacks.progress._BAR_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")  # not a dumb one, which has no bar
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=200, legacy_windows=False)
    fit(console)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    assert "━" in plain
    assert re.search(r"2/2\b.*\b12/12\b", plain)
    assert len(re.findall(r"epoch \d/2  loss", plain)) == 2
    assert "\x1b[?25h" in output.getvalue()  # the cursor is back
