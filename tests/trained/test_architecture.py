"""Which network a state dict belongs to."""

import pytest
from torch import nn

from cifar_lab import models
from cifar_lab.trained.architecture import architecture


@pytest.mark.parametrize(
    ("option", "network"),
    [
        ("resnet14", models.ResNet([1, 1], [4, 8])),
        ("resnet20", models.ResNet([2, 1], [4, 8], shortcut="padding")),
        ("preact_resnet18", models.ResNet([1, 1], [4, 8], preactivation=True)),
        ("wide_resnet", models.ResNet([1, 1], [8, 16], stem=4, preactivation=True)),
        ("vgg16", models.VGG([[4, 4], [8]], hidden=None, batch_norm=True)),
        ("vgg_a", models.VGG([[4], [8]], hidden=16)),
    ],
)
def test_a_state_dict_determines_its_option_and_arguments(option: str, network: nn.Module) -> None:
    found = architecture(network.state_dict())
    assert found is not None
    assert found.option == option
    made = getattr(models, found.target.rpartition(".")[2])(**found.arguments)
    made.load_state_dict(network.state_dict())
    assert {name: type(module) for name, module in made.named_modules() if "activation" not in name} == {
        name: type(module) for name, module in network.named_modules() if "activation" not in name
    }
