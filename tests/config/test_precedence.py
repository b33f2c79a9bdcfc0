"""Command line > experiment > model > default; an experiment's settings of a replaced option are dropped."""

import itertools
from functools import cache
from typing import Any

import hydra._internal.hydra as hydra_internals
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from cifar_lab.config import conf_folder
from cifar_lab.config.precedence import Loader

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
# One option per group that few experiments choose.
ANOTHER = {"activation": "mish", "model": "vgg_a_light", "loss": "focal", "optimizer": "adamw", "averaging": "ema"}
ANOTHER |= {"scheduler": "warm_restarts", "augment": "cutout", "data": "synthetic", "protocol": "report"}
OPTIONS = [(group, path.stem) for group in ANOTHER for path in sorted((conf_folder() / group).glob("*.yaml"))]
# These differ in the groups whose options they choose; resnet_adamw_150 extends a different experiment.
SOME = ("activation_elu", "loss_focal", "fast_91", "resnet_adamw_150", "swa")


@cache
def _composition(*overrides: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a composition in plain values and the chosen option of each group."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, Loader)
        config: Any = OmegaConf.to_container(compose("train", [*overrides]))
        return config, loader.choices


def _words(options: dict[str, str]) -> list[str]:
    return [f"{group}={option}" for group, option in options.items()]


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        *((name, ANOTHER) for name in SOME),
        *((name, {group: ANOTHER[group]}) for name, group in zip(itertools.cycle(SOME), ANOTHER, strict=False)),
        *(
            pytest.param(name, options, marks=pytest.mark.slow)
            for name in EXPERIMENTS
            for options in (ANOTHER, *({group: option} for group, option in OPTIONS))
        ),
    ],
)
def test_options_replace_the_experiments_with_their_numbers_and_no_others(
    experiment: str, options: dict[str, str]
) -> None:
    """A replaced option keeps none of the experiment's settings; the rest of the experiment stays."""
    default, _ = _composition(*_words(options))
    alone, chosen = _composition(f"experiment={experiment}")
    others = {group: option for group, option in options.items() if chosen[group] != option}
    replaced, _ = _composition(f"experiment={experiment}", *_words(others))
    assert {group: replaced[group] for group in others} == {group: default[group] for group in others}
    # A model sets its activation, unless the experiment chooses one.
    rest = set(alone) - set(others) - {"activation"}
    assert {key: replaced[key] for key in rest} == {key: alone[key] for key in rest}


def test_typing_an_experiments_own_options_changes_nothing() -> None:
    own = {"model": "cnn", "activation": "leaky_relu", "loss": "label_smoothing", "averaging": "swa"}
    assert _composition("experiment=swa", *_words(own)) == _composition("experiment=swa")


def test_the_command_line_wins_over_the_experiment_over_the_model_over_the_default() -> None:
    def activation(*overrides: str) -> Any:
        return _composition(*overrides)[0]["activation"]

    for line, name in {
        "": "LeakyReLU",
        "model=resnet14": "SiLU",
        "experiment=activation_relu model=resnet14": "ReLU",
        "experiment=activation_relu activation=gelu": "GELU",
        "activation=mish model=vgg_a": "Mish",
    }.items():
        assert activation(*line.split())["_target_"] == f"torch.nn.{name}"
    assert activation("experiment=swa")["negative_slope"] == 0.05
    assert activation("experiment=swa", "activation.negative_slope=0.2")["negative_slope"] == 0.2
    # The experiment's numbers for a replaced option are dropped; typed ones stay.
    config, _ = _composition("experiment=swa", "loss=focal", "optimizer=adam", "optimizer.lr=0.3")
    assert "smoothing" not in config["loss"]
    assert (config["optimizer"]["lr"], config["optimizer"]["weight_decay"], config["epochs"]) == (0.3, 1e-4, 100)


def test_settings_that_no_option_replaces_stay() -> None:
    assert _composition("experiment=resnet_adamw_150")[0]["data"]["mean"] == [0.5, 0.5, 0.5]
    config, _ = _composition("experiment=resnet_adamw_150", "trainer=cpu", "data=synthetic")
    assert config["trainer"]["check_val_every_n_epoch"] == 5
    assert config["data"]["mean"] == [0.4914, 0.4822, 0.4465]


def test_hydra_still_has_the_two_methods_that_we_extend() -> None:
    assert hydra_internals.ConfigLoaderImpl is Loader
    own = {"_compose_config_from_defaults_list", "_load_single_config"}
    assert own <= set(vars(Loader.__base__))
