"""Shared fixtures: composed configurations, commands in an empty folder, and runs that are trained once."""

import copy
import gc
import io
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

# Set before torch is imported, also for the processes that tests start: their tensors are too small for two threads.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult
from matplotlib.figure import Figure
from omegaconf import DictConfig
from PIL import Image

from cifar_lab.config import conf_folder
from cifar_lab.engines.application import run_application
from cifar_lab.runs import Run
from cifar_lab.train import run
from cifar_lab.train.command import command as train

# A whole run takes about a second.
TINY = (
    *("data=synthetic", "data.num_train=60", "data.num_test=20", "model.filters=[4,4,4]"),
    *("batch_size=6", "epochs=2", "trainer=cpu"),
)
Compose = Callable[..., DictConfig]
Train = Callable[..., Run]
# How to run the tests that are left out, by marker.
LEFT_OUT = {
    "slow": "make test-all",
    "gpu": "make test-all on a machine with a GPU",
    "data": "CIFAR_LAB_DATA=... make test, with the folder of CIFAR-10",
    "cluster": "make cluster-test",
}
CHECKOUT = Path(__file__).resolve().parents[1]
SLOW_TIMEOUT = 900  # seconds


class Outcome(NamedTuple):
    """How a command ended: exit code, output, and the runs it left, sorted by folder."""

    code: int
    stdout: str
    stderr: str
    runs: list[Run]


Lab = Callable[..., Outcome]  # value of the fixture `lab`
Called = Callable[..., tuple[int, str, str]]  # value of the fixture `called`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests without a GPU, mark tests that train, and raise the timeout of slow tests."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU here"))
        if {"lab", "trained"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.trains)
        if item.get_closest_marker("slow") or item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exclude half a million objects of pytest and torch from the garbage collection after each job of a sweep."""
    gc.collect()
    gc.freeze()


class LeftOut:
    """Reports at the end which tests were left out and how to run them.

    Workers of pytest-xdist collect the tests and send their counts; the controller prints.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count each test once, by its last marker in `LEFT_OUT`."""
        for item in items:
            self.counts.update([name for name in LEFT_OUT if item.get_closest_marker(name)][-1:])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = dict(self.counts)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.counts = Counter(getattr(node, "workeroutput", {}).get("left_out", {})) or self.counts

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        if self.counts and not hasattr(config, "workeroutput"):
            print("not run:", "; ".join(f"{count} {name} ({LEFT_OUT[name]})" for name, count in self.counts.items()))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut())


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use one thread for tiny tensors, and keep a test's random state and modules from the next test."""
    threads, modules = torch.get_num_threads(), set(sys.modules)
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    root = tmp_path_factory.getbasetemp()
    for name in sys.modules.keys() - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and (root in Path(file).parents or not Path(file).is_absolute()):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paint figures only in tests marked `paints`, skip fsync, and read each option file once."""
    quick(monkeypatch, paints=request.node.get_closest_marker("paints") is not None)


def quick(patch: pytest.MonkeyPatch, *, paints: bool = False) -> None:
    """Apply the speed-ups of `_quick` to a module-wide fixture, which runs before `_quick` does."""
    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(ConfigRepository, "load_config", _load_config)
    if not paints:
        patch.setattr(Figure, "savefig", save_blank)


def _load_config(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
    """Hydra's own method, with a cache of our option files: reading them takes a third of a composition's time."""
    if any(source.scheme() == "file" and source.path != str(conf_folder()) for source in repository.sources):
        return _hydras_load_config(repository, config_path)
    key = (*(source.path for source in repository.sources), config_path)
    if key not in _files:
        _files[key] = _hydras_load_config(repository, config_path)
    return copy.deepcopy(_files[key])


_hydras_load_config = ConfigRepository.load_config
_files: dict[tuple[str, ...], ConfigResult | None] = {}


def save_blank(figure: Figure, file: Any, *, format: str = "png", **_: object) -> None:  # noqa: A002
    contents = BLANK_SVG if format == "svg" else blank_png()
    if hasattr(file, "write"):
        file.write(contents if "b" in getattr(file, "mode", "b") else contents.decode())
    else:
        Path(file).write_bytes(contents)


BLANK_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'


@cache
def blank_png() -> bytes:
    """Return a PNG of one pixel."""
    Image.new("RGB", (1, 1), "white").save(buffer := io.BytesIO(), "png")
    return buffer.getvalue()


@pytest.fixture
def composed() -> Compose:
    """Compose `conf/train.yaml` with overrides and the name `test`; cached, with a copy for each caller."""
    return lambda *overrides: copy.deepcopy(_composition(*overrides))


@cache
def _composition(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", ["name=test", *overrides])


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    """Call a command's `main` with arguments in this process, and return the exit code, stdout and stderr."""

    def command(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        capfd.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        assert isinstance(code, int)
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    """Write a component in a user's package and its option file, and return the arguments that choose it."""

    def leave(package: str, source: str, group: str, option: str) -> tuple[str, ...]:
        (tmp_path / f"{package}.py").write_text(source)
        folder = tmp_path / "conf" / group
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text(option)
        monkeypatch.syspath_prepend(tmp_path)
        return ("--config-dir", str(tmp_path / "conf"), f"{group}=mine", f"allow=[{package}]")

    return leave


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Lab:
    """Run `python -m cifar_lab.train` with arguments in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr("sys.argv", ["train"])

    def command(*arguments: str) -> Outcome:
        capfd.readouterr()  # discards the output of fixtures
        with pytest.raises(SystemExit) as exit_:
            run_application(lambda: train(arguments))
        assert isinstance(exit_.value.code, int)
        out, err = capfd.readouterr()
        folders = sorted(path.parent for path in tmp_path.glob("**/status.json"))
        return Outcome(exit_.value.code, out, err, [Run(folder) for folder in folders])

    return command


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def folder(*words: str) -> Path:
        path = tmp_path_factory.mktemp("trained") / "run"
        with pytest.MonkeyPatch.context() as patch:
            quick(patch)
            run([*words, f"hydra.run.dir={path}"])
        return path

    return folder


@pytest.fixture
def trained(_trained_once: Callable[..., Path], tmp_path: Path) -> Train:
    """Return a copy of a finished run, `run` by default; each command line is trained once for all tests."""

    def copied(*words: str, name: str = "run") -> Run:
        shutil.copytree(_trained_once(*words), tmp_path / name)
        return Run(tmp_path / name)

    return copied


def on_a_terminal(patch: pytest.MonkeyPatch) -> None:
    """Make standard output and standard error look like a terminal that can draw bars."""
    patch.setenv("TERM", "xterm")  # a dumb terminal has no bars
    for stream in (sys.stdout, sys.stderr):
        patch.setattr(stream, "isatty", lambda: True)


def refusal(outcome: Outcome | tuple[int, str, str], *facts: object) -> str:
    """Check that a command refused in one line, with exit code 2 and no output, and named the facts; return it."""
    code, out, err = outcome[:3]
    assert code == 2, err
    assert out == ""
    return names(err, *facts)


def names(text: str, *facts: object) -> str:
    """Check that a text is one line, `error: ...`, that names all the facts; return the line."""
    (line,) = text.splitlines()
    assert re.match(r"error: \S", line), line
    holds(line, *facts)
    return line


def holds(text: str, *facts: object) -> None:
    """Check that a text names all the facts."""
    for fact in facts:
        assert str(fact) in text, f"{fact} is missing in: {text}"
