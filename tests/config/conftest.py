"""Compositions that many tests read."""

import copy
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cifar_lab.config import conf_folder
from tests.conftest import Compose


@cache
def _composition(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", ["name=test", *overrides])


@pytest.fixture
def composed() -> Compose:
    """Compose `conf/train.yaml` with overrides, named `test`: each once, and a copy for each caller."""
    return lambda *overrides: copy.deepcopy(_composition(*overrides))
