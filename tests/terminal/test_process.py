"""Output that nobody reads, that does not fit, or that a terminal cannot show."""

import io
import locale
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest

from cifar_lab import status
from cifar_lab.evaluate import command as evaluate
from cifar_lab.explain import command as explain
from cifar_lab.export import command as export
from cifar_lab.report import command as report
from cifar_lab.runs import Run
from cifar_lab.table import command as table
from cifar_lab.terminal.process import printing
from tests.conftest import TINY, Lab, Train

PLAIN = (*TINY, "epochs=1", "logger=none")
BOGUS = {**os.environ, "MPLBACKEND": "bogus"}


def _closed(reader: int, writer: int) -> int:
    os.close(reader)
    return writer


BROKEN = {
    "pipe": lambda: _closed(*os.pipe()),
    "terminal": lambda: _closed(*os.openpty()),
    "full disk": lambda: os.open("/dev/full", os.O_WRONLY),
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Iterator[TextIO]:
    """A stream that cannot be written to."""
    stream = os.fdopen(BROKEN[request.param](), "w", buffering=1, encoding="utf-8")
    yield stream
    with suppress(OSError):
        stream.close()


def test_text_that_cannot_be_written_is_dropped_or_an_error(broken: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", broken)
    with printing():
        print("lost", flush=True)
        print("in the buffer", end="")
    broken.flush()  # as Python does at exit, with exit code 120 if something is left to write
    assert sys.stdout is broken
    with printing(loses=()), pytest.raises(OSError, match="Errno"):
        print("an error", flush=True)


def test_a_sweep_trains_in_silence_if_nobody_reads(lab: Lab, broken: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", broken)
    monkeypatch.setattr(sys, "stderr", broken)
    outcome = lab("-m", *PLAIN, "seed=0,1")
    assert outcome.code == 0
    assert [run.state() for run in outcome.runs] == ["finished"] * 2
    assert len(list(Path("outputs").glob("*/table.md"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [["trainer=ddp", "trainer.devices=2"], ["-m", "seed=0,1", "jobs_per_device=2"]])
def test_processes_of_a_command_train_in_silence(words: list[str], tmp_path: Path) -> None:
    line = [sys.executable, "-m", "cifar_lab.train", *PLAIN, *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, cwd=tmp_path, env=BOGUS, stdout=full, stderr=full, check=False)
    assert done.returncode == 0
    runs = [Run(file.parent) for file in tmp_path.glob("**/status.json")]
    assert runs and {run.state() for run in runs} == {"finished"}


def test_files_are_utf_8_and_symbols_that_the_terminal_lacks_are_replaced(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = locale.setlocale(locale.LC_CTYPE)
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    locale.setlocale(locale.LC_CTYPE, "C")  # makes open() default to ASCII, as LC_ALL=C PYTHONUTF8=0 does
    try:
        outcome = lab("-m", *PLAIN, "seed=0,1", "name='größe'")
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert outcome.code == 0, outcome.stderr
    assert "±" in Path("outputs/größe/table.md").read_text(encoding="utf-8")
    shown.seek(0)
    printed = shown.read()
    assert " +- " in printed
    assert "outputs/gr\\xf6\\xdfe/table.md" in printed


_IMPORTS = """
from cifar_lab.terminal.command import run_command

def draw() -> None:
    import matplotlib.pyplot

run_command(draw)
"""


def test_an_unknown_backend_of_matplotlib_does_not_stop_a_command() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTS], env=BOGUS, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("place", ["", "MATPLOTLIBRC", "MPLCONFIGDIR"])
def test_a_matplotlibrc_that_is_not_utf_8_does_not_stop_a_command(tmp_path: Path, place: str) -> None:
    (tmp_path / "matplotlibrc").write_bytes("axes.facecolor: red # gr\xf6\xdfer\n".encode("latin-1"))
    environment = {**os.environ, **({place: str(tmp_path)} if place else {})}
    line, folder = [sys.executable, "-c", _IMPORTS], None if place else tmp_path
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "arguments", "file"),
    [
        (table.main, ["out", "--output", "written"], "table.md"),
        (report.main, ["out", "--output", "written", "--results", "none"], "index.html"),
        (evaluate.main, ["out/run", "--output", "written"], "evaluation.json"),
        (explain.main, ["out/run", "--output", "written"], "filters.png"),
        (export.main, ["out/run", "--output", "written", "--format", "safetensors"], "*.safetensors"),
        (status.main, ["out"], None),
    ],
    ids=["table", "report", "evaluate", "explain", "export", "status"],
)
def test_a_closed_pipe_does_not_stop_a_command_before_its_files_are_written(
    command: Callable[[], None],
    arguments: list[str],
    file: str | None,
    trained: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained(*PLAIN, name="out/run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    pipe = os.fdopen(BROKEN["pipe"](), "w", buffering=1, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", pipe)
    with pytest.raises(SystemExit) as ended:
        command()
    with suppress(OSError):
        pipe.close()
    assert ended.value.code == 0
    assert file is None or list(tmp_path.glob(f"written/{file}"))
