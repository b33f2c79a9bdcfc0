"""What tests share: composed configurations and tiny runs."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cifar_lab.config import conf_folder

# Small enough for a step to take milliseconds.
TINY = ("data=synthetic", "data.num_train=60", "data.num_test=20", "batch_size=6", "epochs=1", "trainer=cpu")
Compose = Callable[..., DictConfig]


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
def composed() -> Iterator[Compose]:
    """Compose `conf/train.yaml` with overrides, named `test`."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield lambda *overrides: compose("train", ["name=test", *overrides])


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m cifar_lab.train` in an empty folder, as a user would."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "cifar_lab.train", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    return run
