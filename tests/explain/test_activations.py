"""Dead units, measured in networks whose dead units are known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.explain.activations import measure, totals
from cifar_lab.models import CNN, VGG, ResNet

Activation = Callable[[], nn.Module]
IMAGES = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network(activation: Activation) -> nn.Sequential:
    """Return a network with 2 of 6 channels and 3 of 5 features that are never positive."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), activation(), nn.Flatten(), nn.Linear(6 * 64, 5), activation(), nn.Linear(5, 2)
    )
    with torch.no_grad():
        for layer, units in ((model[0], [0, 1]), (model[3], [2, 3, 4])):
            layer.weight[units] = 0  # type: ignore[index, operator]
            layer.bias[units] = -1.5  # type: ignore[index, operator]
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("activation", "dead"),
    [(nn.ReLU, True), (nn.LeakyReLU, False), (nn.ELU, False), (nn.SiLU, False), (nn.GELU, False), (nn.Mish, False)],
)
def test_a_unit_that_is_never_positive_is_dead_if_the_activation_is_flat_there(
    activation: Activation, dead: bool
) -> None:
    convolution, linear = measure(network(activation), IMAGES.split(3))
    assert (convolution.layer, linear.layer) == ("1", "4")
    assert convolution.activation == activation.__name__  # type: ignore[attr-defined]
    assert (convolution.units, linear.units) == (6, 5)
    # The count of the linear layer's other two units depends on the activation: one may be on one side by chance.
    assert convolution.negative_only_units == 2 and convolution.row()["negative_only"] == pytest.approx(2 / 6)
    assert linear.negative_only_units >= 3
    assert convolution.dead_units == (2 if dead else 0)
    assert linear.dead_units == (linear.negative_only_units if dead else 0)
    told = totals([convolution, linear])
    assert (told["units"], told["dead_units"]) == (11, convolution.dead_units + linear.dead_units)
    assert told["dead"] == pytest.approx(told["dead_units"] / 11)


def test_a_saturated_unit_is_dead_and_one_image_on_the_other_side_revives_it() -> None:
    for activation in (nn.ReLU6(), nn.Tanh()):
        (layer,) = measure(nn.Sequential(activation), [torch.full((3, 2), 100.0)])
        assert (layer.dead_units, layer.negative_only_units) == (2, 0)
    inputs = -torch.ones(20, 2)
    for dead in (2, 1):
        (layer,) = measure(nn.Sequential(nn.ReLU()), inputs.split(4))
        assert layer.dead_units == layer.negative_only_units == dead
        inputs[13, 1] = 0.1


@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.ReLU(inplace=True), nn.GELU, nn.Tanh])
def test_a_layers_numbers_describe_its_inputs_and_outputs(activation: Activation) -> None:
    model = network(activation)
    layers = measure(model, IMAGES.split(2))
    inputs = model[0](IMAGES)
    outputs = activation()(inputs.clone())
    assert layers[0].mean == pytest.approx(float(outputs.mean()), rel=1e-5)
    assert layers[0].std == pytest.approx(float(outputs.std(correction=0)), rel=1e-5)
    assert layers[0].negative_inputs == pytest.approx(float((inputs < 0).float().mean()))
    assert layers[0].zeros == pytest.approx(float((outputs == 0).float().mean()))
    far = 1e4 + torch.randn(500, 4)  # a spread that is small compared with the mean is not lost
    (layer,) = measure(nn.Sequential(nn.Identity(), nn.ReLU()), far.split(7))
    assert layer.std == pytest.approx(float(far.double().std(correction=0)), rel=1e-3)


def test_every_activation_of_a_network_has_a_row() -> None:
    images = torch.randn(2, 3, 32, 32)
    units = {"conv_layers.3": 4, "conv_layers.7": 5, "conv_layers.11": 6, "fc_layers.1": 512, "fc_layers.4": 256}
    of_vgg = {"features.3": 4, "classifier.1": 8, "classifier.3": 8}
    stages = [f"layer{stage}.0.activation{number}" for stage in (1, 2) for number in (1, 2)]
    for model, expected in (
        (CNN((4, 5, 6), activation=nn.ReLU), units),
        (VGG([[4]], hidden=8, batch_norm=True), of_vgg),
        (ResNet((1, 1), (8, 8)), dict.fromkeys(["activation1", *stages], 8)),
    ):
        assert {layer.layer: layer.units for layer in measure(model.eval(), [images])} == expected


class Half(nn.Module):
    """An activation defined by the user."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.clamp(min=0) / 2


class Step(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.detach() > 0).float()


def test_an_activation_used_twice_has_two_rows_and_a_users_activation_has_its_class_name() -> None:
    images = torch.randn(6, 4).split(2)
    relu, half, step = (
        nn.Sequential(nn.Linear(4, 3), activation, nn.Linear(3, 2), activation)
        for activation in (nn.ReLU(), Half(), Step())
    )
    assert [(layer.layer, layer.units) for layer in measure(relu, images)] == [("1", 3), ("1#2", 2)]
    assert measure(half, images) == []
    assert [layer.activation for layer in measure(half, images, "Half")] == ["Half", "Half"]
    assert [layer.dead_units for layer in measure(step, images, "Step")] == [3, 2]


def test_a_layer_whose_shape_does_not_show_its_units_is_named() -> None:
    told: list[str] = []
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Unflatten(1, (2, 3)), nn.GELU())
    layers = measure(model, torch.randn(6, 4).split(3), complain=told.append)
    assert [layer.layer for layer in layers] == ["1"]
    (complaint,) = told
    assert complaint.startswith("3 ") and "(N, 2, 3)" in complaint
    # A layer that mixes features is not an activation layer.
    assert measure(nn.Sequential(nn.Softmax(dim=1)), [torch.randn(2, 3)]) == []
    assert totals([])["dead"] is None
