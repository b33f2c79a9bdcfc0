"""What tests share: composed configurations, and the command in an empty folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cifar_lab.config import checked, conf_folder, run_application
from cifar_lab.runs import Run
from cifar_lab.train import launch

# Small enough for a whole run to take a second.
TINY = (
    *("data=synthetic", "data.num_train=60", "data.num_test=20", "model.filters=[4,4,4]"),
    *("batch_size=6", "epochs=2", "trainer=cpu"),
)
Compose = Callable[..., DictConfig]


class Outcome(NamedTuple):
    """How a command ended: its exit code, what it printed, and the runs it left, by folder."""

    code: int
    stdout: str
    stderr: str
    runs: list[Run]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep tiny tensors from waiting for threads, and a test's random state from the next."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def composed() -> Compose:
    """Compose `conf/train.yaml` with overrides, named `test`."""

    def composition(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return compose("train", ["name=test", *overrides])

    return composition


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call an ordinary command's `main` with arguments in this process: its exit code, and what it printed."""

    def command(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, *capfd.readouterr()

    return command


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    """Leave a component of a package of the user's own, and its option: the arguments that choose it."""

    def leave(package: str, source: str, group: str, option: str) -> tuple[str, ...]:
        (tmp_path / f"{package}.py").write_text(source)
        folder = tmp_path / "conf" / group
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text(option)
        monkeypatch.syspath_prepend(tmp_path)
        return ("--config-dir", str(tmp_path / "conf"), f"{group}=mine", f"allow=[{package}]")

    return leave


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `python -m cifar_lab.train` with arguments, in an empty folder and in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr("sys.argv", ["train"])

    def command(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as exit_:
            run_application(lambda: launch(checked(arguments)))
        assert isinstance(exit_.value.code, int)
        out, err = capfd.readouterr()
        folders = sorted(path.parent for path in tmp_path.glob("**/status.json"))
        return Outcome(exit_.value.code, out, err, [Run(folder) for folder in folders])

    return command
