"""An option's file is its schema: its keys are the arguments of its target."""

import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from cifar_lab.config import checks, conf_folder
from cifar_lab.config.build import GROUPING
from cifar_lab.data import datamodule
from cifar_lab.runs.fingerprints import leaves

# Arguments of torch that no option offers: layouts and debugging aids that change no result, arguments that the
# optimizer or the loss gets from elsewhere, and arguments that torch is deprecating.
LEFT_OUT = {
    **{f"torch.nn.{activation}": {"inplace"} for activation in ("ReLU", "LeakyReLU", "ELU", "SiLU", "Mish")},
    "torch.nn.GELU": {"approximate"},
    "torch.nn.CrossEntropyLoss": {"weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing"},
    "torch.optim.Adam": {"maximize", "capturable", "differentiable", "decoupled_weight_decay"},
    "torch.optim.AdamW": {"maximize", "capturable", "differentiable"},
    "torch.optim.SGD": {"maximize", "differentiable"},
    "torch.optim.lr_scheduler.OneCycleLR": {"epochs", "steps_per_epoch"},
    "lightning.pytorch.callbacks.EarlyStopping": {
        *("verbose", "strict", "check_finite", "stopping_threshold", "divergence_threshold"),
        *("check_on_train_epoch_end", "log_rank_zero_only"),
    },
    "lightning.pytorch.loggers.CSVLogger": {"prefix", "flush_logs_every_n_steps"},
}
GIVEN = {"self", "optimizer", "params", "images", "generator", "last_epoch", "verbose", "args", "kwargs", "options"}
GIVEN |= {"run", "throughput"}


@cache
def _options() -> dict[str, dict[str, Any]]:
    """Return every option's settings, including those of its parent in the same group."""
    others = {"experiment", "study", "search", "debug", "trainer", "protocol", "hydra"}
    paths = [path for path in sorted(conf_folder().glob("*/*.yaml")) if path.parent.name not in others]
    return {f"{path.parent.name}/{path.stem}": _settings(path) for path in paths}


def _settings(path: Path) -> dict[str, Any]:
    own = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(own, dict)
    merged: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            merged |= _settings(path.parent / f"{parent}.yaml")
    return {**merged, **{str(key): value for key, value in own.items()}}


def _targets(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "_target_" in settings:
        return [settings]
    return [inner for name, inner in settings.items() if isinstance(inner, Mapping) and name != "checkpoint"]


@pytest.mark.parametrize("option", _options())
def test_the_keys_of_an_option_are_the_arguments_of_its_target(option: str) -> None:
    for settings in _targets(_options()[option]):
        target = get_object(settings["_target_"])
        accepted = set(inspect.signature(target).parameters)
        if inspect.isclass(target) and issubclass(target, datamodule.InMemoryDataModule):
            accepted |= {name for base in target.__mro__[:-1] for name in inspect.signature(base).parameters}
        offered = set(settings) - {"_target_", "_partial_", "lightning", *GROUPING}
        assert offered == accepted - GIVEN - LEFT_OUT.get(settings["_target_"], set())


@pytest.mark.parametrize("option", _options())
def test_every_number_of_an_option_has_a_range(option: str) -> None:
    for key, value in leaves(_options()[option]):
        values = value if isinstance(value, list) else [value]
        is_number = any(isinstance(element, int | float) and not isinstance(element, bool) for element in values)
        assert not is_number or key.rpartition(".")[2] in checks.RANGES, key


def test_the_trainers_keys_are_lightnings_arguments() -> None:
    settings = _settings(conf_folder() / "trainer" / "auto.yaml")
    accepted = set(inspect.signature(L.Trainer).parameters)
    assert set(settings) - accepted == {"memory_format"}
    for name in ("cpu", "gpu"):
        assert set(_settings(conf_folder() / "trainer" / f"{name}.yaml")) == set(settings)


def test_the_option_files_and_the_code_have_the_same_normalisation() -> None:
    for option in ("data/cifar10", "data/synthetic"):
        mean, std = (tuple(_options()[option][key]) for key in ("mean", "std"))
        assert (mean, std) == (datamodule.CIFAR10_MEAN, datamodule.CIFAR10_STD)


def test_a_schedulers_interval_is_a_word_of_lightning() -> None:
    for option, settings in _options().items():
        if option.startswith("scheduler/"):
            assert settings["lightning"]["interval"] in ("epoch", "step")
            assert issubclass(get_object(settings["_target_"]), torch.optim.lr_scheduler.LRScheduler)


SHOWN = {
    "--help": "",
    "--cfg job model=resnet18": "_target_: cifar_lab.models.ResNet",
    "--cfg job --resolve name=x epochs=7": "T_max: 7",
    "--info defaults": "model/cnn",
    "--cfg job --resolve study=scheduler": "name: study-scheduler",
    "--info defaults study=scheduler": "study/scheduler",
    "--shell-completion install=bash": "complete -o nospace",
    "--shell-completion install=zsh": "complete -o nospace",
    "--shell-completion install=fish": "complete -c",
}


@pytest.fixture(scope="module")
def help_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Output of commands that only print, by their arguments; they import nothing heavy."""
    code = (
        "import sys\nfrom cifar_lab.train import main\n"
        "for line in sys.argv[1:]:\n"
        "    sys.argv[1:] = line.split()\n"
        "    try: main()\n"
        "    except SystemExit as exit_: print('\\f', exit_.code, sep='', flush=True)\n"
        "heavy = {'torch', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy"
    )
    folder = tmp_path_factory.mktemp("shown")
    command = [sys.executable, "-c", code, *SHOWN]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    *pages, last = re.split(r"\f(\d+)\n", done.stdout)
    assert last == "" and not list(folder.iterdir())
    assert pages[1::2] == ["0"] * len(SHOWN)
    return dict(zip(SHOWN, pages[::2], strict=True))


def test_help_names_every_group_option_scalar_and_runnable_examples(help_pages: dict[str, str]) -> None:
    page = help_pages["--help"]
    for folder in conf_folder().iterdir():
        if folder.is_dir() and folder.name != "hydra":
            assert re.search(rf"^\s*{folder.name}: ", page, re.MULTILINE), folder.name
            assert all(path.stem in page for path in folder.glob("*.yaml"))
    defaults = OmegaConf.load(conf_folder() / "train.yaml")
    for name, default in re.findall(r"^\s+(\w+)=(\S+)  ", page, re.MULTILINE):
        if name not in ("name", "allow", "resume"):
            assert float(defaults[name]) == float({"true": 1, "false": 0}.get(default, default)), name
    examples = re.findall(r"^\s+python -m cifar_lab\.train (.*=.*)$", page, re.MULTILINE)
    assert len([example for example in examples if "GROUP" not in example]) == 9


def test_requests_that_need_no_training_are_printed(help_pages: dict[str, str]) -> None:
    for line, words in SHOWN.items():
        assert words in help_pages[line], line
        assert "axes:" not in help_pages[line], line
