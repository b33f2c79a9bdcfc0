"""What makes these tests quick: a composition takes a tenth of a second, most of it to read the same files again."""

import copy
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from cifar_lab.config import conf_folder
from tests.conftest import Compose

_OURS = str(conf_folder())
_files: dict[tuple[str, ...], ConfigResult | None] = {}


@pytest.fixture(autouse=True)
def _each_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what our own options' files hold; compositions with a user's folder read all of them."""
    load_config = ConfigRepository.load_config

    def kept(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
        if any(source.scheme() == "file" and source.path != _OURS for source in repository.sources):
            return load_config(repository, config_path)
        key = (*(source.path for source in repository.sources), config_path)
        if key not in _files:
            _files[key] = load_config(repository, config_path)
        return copy.deepcopy(_files[key])

    monkeypatch.setattr(ConfigRepository, "load_config", kept)


@cache
def _composition(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", ["name=test", *overrides])


@pytest.fixture
def composed() -> Compose:
    """Compose `conf/train.yaml` with overrides, named `test`: each once, and a copy for each caller."""
    return lambda *overrides: copy.deepcopy(_composition(*overrides))
