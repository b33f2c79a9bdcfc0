"""Command line > experiment > model > default; and what an experiment set inside a replaced option falls away."""

from collections.abc import Callable
from functools import cache
from typing import Any

import hydra._internal.hydra as hydra_internals
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import conf_folder
from cifar_lab.config.precedence import Loader

Compose = Callable[..., DictConfig]
EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
GROUPS = {
    group: sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    for group in ("activation", "model", "loss", "optimizer", "scheduler", "averaging", "augment", "data", "protocol")
}
# One option of each group that no experiment names, as far as there is one.
ANOTHER = {
    "activation": "mish",
    "model": "vgg_a_light",
    "loss": "focal",
    "optimizer": "adamw",
    "scheduler": "warm_restarts",
    "averaging": "ema",
    "augment": "cutout",
    "data": "synthetic",
    "protocol": "report",
}


@cache
def _composition(*overrides: str) -> tuple[Any, dict[str, str]]:
    """A composition in plain values, and the chosen option of each group."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, Loader)
        return OmegaConf.to_container(compose("train", [*overrides])), loader.choices


def _replaced_option_is_its_own(experiment: str, group: str, option: str) -> None:
    """A replaced option keeps nothing of the experiment's, and the rest of the experiment stays."""
    alone, chosen = _composition(f"experiment={experiment}")
    replaced, _ = _composition(f"experiment={experiment}", f"{group}={option}")
    default, _ = _composition(f"{group}={option}")
    if chosen[group] == option:
        assert replaced == alone
        return
    assert replaced[group] == default[group]
    # A model brings its activation, unless the experiment names one.
    others = set(alone) - {group, "activation"}
    assert {key: replaced[key] for key in others} == {key: alone[key] for key in others}


@pytest.mark.parametrize("group", ANOTHER)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_option_replaces_the_experiments_with_its_numbers(experiment: str, group: str) -> None:
    _replaced_option_is_its_own(experiment, group, ANOTHER[group])


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in GROUPS[group]])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_option_replaces_every_experiments(experiment: str, group: str, option: str) -> None:
    _replaced_option_is_its_own(experiment, group, option)


def test_the_command_line_wins_over_the_experiment_over_the_model_over_the_default(composed: Compose) -> None:
    assert composed().activation._target_ == "torch.nn.LeakyReLU"
    assert composed("model=resnet14").activation._target_ == "torch.nn.SiLU"
    assert composed("experiment=beyond_resnet18").activation._target_ == "torch.nn.ReLU"
    assert composed("experiment=beyond_resnet18", "activation=gelu").activation._target_ == "torch.nn.GELU"
    assert composed("experiment=best_cnn").activation.negative_slope == 0.05
    assert composed("experiment=best_cnn", "activation.negative_slope=0.2").activation.negative_slope == 0.2
    assert composed("experiment=best_cnn", "activation=leaky_relu").activation.negative_slope == 0.05


def test_numbers_of_a_replaced_option_fall_away_and_typed_ones_stay(composed: Compose) -> None:
    assert composed("experiment=loss_label_smoothing").loss.smoothing == 0.2
    assert "smoothing" not in composed("experiment=loss_label_smoothing", "loss=focal").loss
    assert composed("experiment=optimizer_sgd", "optimizer=adam").optimizer.weight_decay == 1e-4
    assert composed("experiment=best_cnn", "optimizer=sgd").optimizer.lr == 0.05
    assert composed("experiment=best_cnn", "optimizer=sgd", "optimizer.lr=0.3").optimizer.lr == 0.3
    assert composed("experiment=best_cnn", "optimizer=sgd").epochs == 100


def test_what_no_option_replaces_stays(composed: Compose) -> None:
    assert composed("experiment=resnet_adamw", "trainer=cpu").trainer.check_val_every_n_epoch == 5
    assert composed("experiment=resnet_adamw_150", "data=synthetic").data.mean == [0.4914, 0.4822, 0.4465]
    assert composed("experiment=resnet_adamw_150").data.mean == [0.5, 0.5, 0.5]


def test_hydra_still_has_the_two_methods_that_we_extend() -> None:
    assert hydra_internals.ConfigLoaderImpl is Loader
    own = {"_compose_config_from_defaults_list", "_load_single_config"}
    assert own <= set(vars(Loader.__base__))
