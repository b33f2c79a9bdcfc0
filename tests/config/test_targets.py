"""Targets that a composition, a folder or a file may call."""

import re
from typing import Any

import pytest

from cifar_lab.config.targets import check_network_targets, check_targets

# Each is a name in one of our modules whose call would write files, remove folders, read any file, or download.
ATTACKS = (
    "cifar_lab.data.download.shutil.rmtree",
    "cifar_lab.data.download.Path",
    "cifar_lab.data.download.fetch",
    "cifar_lab.train.callbacks.saving.write_checkpoint",
    "cifar_lab.train.callbacks.saving.Saving",
    "cifar_lab.models.vgg.nn.Module",
    "cifar_lab.losses.F.cross_entropy",
    "cifar_lab.runs.shutil.rmtree",
    "torch.load",
    "torch.nn.init.calculate_gain",
    "os.system",
)


@pytest.mark.parametrize("target", ATTACKS)
def test_only_components_in_our_modules_may_be_called(target: str) -> None:
    option: dict[str, Any] = {"model": {"_target_": "cifar_lab.models.CNN", "activation": {"_target_": target}}}
    for check in (check_targets, check_network_targets):
        with pytest.raises(ValueError, match=rf"_target_={re.escape(target)}\b"):
            check(option, ())


@pytest.mark.parametrize(
    "target",
    ["cifar_lab.data.datamodule.CIFAR10DataModule", "torch.optim.Adam", "lightning.pytorch.loggers.CSVLogger"],
)
def test_a_network_consists_only_of_networks(target: str) -> None:
    check_targets({"_target_": target}, ())
    with pytest.raises(ValueError, match=rf"_target_={re.escape(target)}\b"):
        check_network_targets({"_target_": target}, ())


def test_targets_that_are_allowed_by_name_may_run() -> None:
    check_network_targets({"_target_": "my_lab.Net", "parts": [{"_target_": "torch.nn.ReLU"}]}, ["my_lab"])
    with pytest.raises(ValueError, match=r"_target_=my_lab\.Net.*--allow my_lab\b"):
        check_network_targets({"_target_": "my_lab.Net"}, ())
