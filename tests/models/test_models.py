import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from cifar_lab.config import build, conf_folder
from cifar_lab.models import CNN, VGG, ResNet
from cifar_lab.models.layers import pooled
from cifar_lab.models.resnet import BasicBlock, PreActBlock

MODELS = ("cnn", "vgg_a", "vgg_a_light", "vgg_a_dropout", "resnet14", "resnet18", "speed_cnn")
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "swish": nn.SiLU, "gelu": nn.GELU}
ACTIVATIONS |= {"mish": nn.Mish}
# By default, each model and each activation runs once, paired so that none is the model's own activation.
QUICK = set(zip(MODELS, [*ACTIVATIONS, "relu"], strict=True))


@cache
def network(*options: str) -> nn.Module:
    """Build the network on the meta device, because nothing here depends on its weights."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"), torch.device("meta"):
        return build(compose("train", ["name=test", *options]).model)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("model=cnn bn=true", 2_603_274),
        ("model=cnn model.filters=[128,256,512]", 5_809_418),
        ("model=vgg_a bn=false", 9_750_922),
        ("model=vgg_a bn=true", 9_756_426),
        ("model=vgg_a_dropout bn=false", 9_750_922),
        ("model=vgg_a_light bn=false", 285_162),
        ("model=resnet14 bn=true", 2_777_674),
        ("model=resnet18 bn=true", 11_173_962),
        # The papers give 0.27 million, 36.5 million and 2.75 million (table 4 of arXiv:1605.07146).
        ("model=resnet20", 269_722),
        ("model=wide_resnet", 36_479_194),
        ("model=wide_resnet model.blocks=[2,2,2] model.widths=[64,128,256]", 2_748_890),
        ("model=preact_resnet18", 11_172_170),
        ("model=vgg16", 14_728_266),
        ("model=vgg16 model.hidden=512", 15_253_578),
    ],
)
def test_parameter_counts_are_the_published_ones(options: str, expected: int) -> None:
    assert sum(weight.numel() for weight in network(*options.split()).parameters()) == expected


@pytest.mark.parametrize(
    ("model", "activation"),
    [
        pytest.param(model, activation, marks=[pytest.mark.slow] * ((model, activation) not in QUICK))
        for model, activation in itertools.product(MODELS, ACTIVATIONS)
    ],
)
def test_an_activation_is_used_everywhere_in_a_model(model: str, activation: str) -> None:
    assert kinds(network(f"model={model}", f"activation={activation}")) == {ACTIVATIONS[activation]}


def kinds(model: nn.Module) -> set[type[nn.Module]]:
    """Return the activation types in a model."""
    return {type(module) for module in model.modules()} & set(ACTIVATIONS.values())


@pytest.mark.parametrize("model", ["resnet20", "preact_resnet18", "wide_resnet", "vgg16"])
def test_other_published_networks_map_images_to_logits(model: str) -> None:
    made = network(f"model={model}")
    assert kinds(made) == {nn.ReLU}
    assert made(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_a_block_whose_residual_is_zero_is_its_shortcut() -> None:
    features = torch.randn(2, 4, 6, 6)
    padded = BasicBlock(4, 6, 2, True, nn.ReLU, shortcut="padding")
    nn.init.zeros_(padded.bn2.weight)
    expected = torch.cat([features[:, :, ::2, ::2].relu(), torch.zeros(2, 2, 3, 3)], dim=1)
    torch.testing.assert_close(padded(features), expected)
    same = PreActBlock(4, 4, 1, True, nn.ReLU)
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(features), features)  # no activation follows the sum
    projected = PreActBlock(4, 6, 2, True, nn.ReLU)
    nn.init.zeros_(projected.conv2.weight)
    activated = projected.activation1(projected.bn1(features))
    torch.testing.assert_close(projected(features), projected.shortcut(activated))


def test_dropout_in_a_block_acts_only_in_training() -> None:
    block, features = PreActBlock(4, 4, 1, True, nn.ReLU, dropout=0.5), torch.randn(2, 4, 6, 6)
    block.bn1.eval(), block.bn2.eval()
    assert not torch.equal(block(features), block(features))
    block.eval()
    torch.testing.assert_close(block(features), block(features))


def test_a_padded_shortcut_removes_no_channels() -> None:
    with pytest.raises(ValueError, match=r"padding.*\[32, 16\]"):
        ResNet([1, 1], [32, 16], shortcut="padding")


def test_each_model_has_its_own_default_activation() -> None:
    for model in MODELS:
        default = {"cnn": nn.LeakyReLU, "resnet14": nn.SiLU, "resnet18": nn.SiLU, "speed_cnn": nn.GELU}.get(
            model, nn.ReLU
        )
        assert kinds(network(f"model={model}", "bn=true")) == {default}


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ("model=cnn bn=true", "negative_slope", 0.1),
        ("activation=leaky_relu activation.negative_slope=0.05", "negative_slope", 0.05),
        ("model=vgg_a activation=elu activation.alpha=0.5", "alpha", 0.5),
    ],
)
def test_an_activations_settings_reach_the_model(options: str, setting: str, value: float) -> None:
    modules = network(*options.split()).modules()
    assert {getattr(module, setting) for module in modules if type(module) in ACTIVATIONS.values()} == {value}


@pytest.mark.parametrize("bn", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_each_convolution_has_batch_norm_or_a_bias(model: str, bn: bool) -> None:
    modules = list(network(f"model={model}", f"bn={str(bn).lower()}").modules())
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    whitening = model == "speed_cnn"  # its first convolution has no BatchNorm
    assert len(norms) == (len(convolutions) - whitening if bn else 0)
    assert bn or all(convolution.bias is not None for convolution in convolutions)


@pytest.mark.parametrize("model", MODELS)
def test_logits_have_a_row_per_image_and_every_weight_gets_a_gradient(model: str) -> None:
    made = network(f"model={model}", "bn=true")
    logits = made(torch.empty(2, 3, 32, 32, device="meta"))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in made.parameters() if weight.requires_grad)


def test_the_cnns_weights_have_the_reports_names() -> None:
    for batch_norm in (True, False):
        modules = {name.rpartition(".")[0] for name, _ in CNN(batch_norm=batch_norm).named_parameters()}
        norms = {f"conv_layers.{number}" for number in (1, 5, 9)} if batch_norm else set()
        expected = {f"conv_layers.{number}" for number in (0, 4, 8)} | {f"fc_layers.{number}" for number in (0, 3, 6)}
        assert modules == expected | norms


def test_the_resnets_weights_have_the_reports_names() -> None:
    keys = ResNet(blocks=(2, 2, 2), widths=(8, 16, 32)).state_dict().keys()
    assert {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "linear.bias"} <= set(keys)
    assert {"layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.weight"} <= set(keys)
    assert not any(key.startswith("layer1.0.shortcut") for key in keys)


def test_vggs_weights_have_the_reports_names() -> None:
    with torch.device("meta"):
        standard, dropout = VGG(), VGG(by_stage=True, dropout=0.5)
    plain = {name.rpartition(".")[0] for name, _ in standard.named_parameters()}
    convolutions = {f"features.{number}" for number in (0, 3, 6, 8, 11, 13, 16, 18)}
    assert plain == convolutions | {f"classifier.{number}" for number in (0, 2, 4)}
    staged = {name for name, _ in VGG(stages=[[16], [32]], hidden=128, by_stage=True).named_parameters()}
    assert {"stage1.0.weight", "stage2.0.weight", "classifier.0.weight"} <= staged
    assert all(isinstance(dropout.classifier[number], nn.Dropout) for number in (0, 3))
    assert dropout.stage5[2].weight.shape == (512, 512, 3, 3)


def test_a_basic_block_adds_its_input_to_two_normalised_convolutions() -> None:
    block = ResNet(blocks=(1,), widths=(8,), activation=nn.ReLU).eval().layer1[0]
    features = torch.randn(2, 8, 8, 8)
    inner = torch.relu(block.bn1(block.conv1(features)))
    torch.testing.assert_close(block(features), torch.relu(block.bn2(block.conv2(inner)) + features))


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), lambda: nn.LeakyReLU(-0.1)])
def test_an_activation_merged_with_its_pool_equals_the_two_in_sequence(activation: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    results = []
    for modules in ([activation(), nn.MaxPool2d(2)], pooled(activation())):
        output = nn.Sequential(*modules)(images)
        results.append((output, *torch.autograd.grad(output, images, upstream)))
    for plain, reordered in zip(*results, strict=True):
        assert torch.equal(plain, reordered)


def test_only_a_monotone_activation_is_applied_after_its_pool() -> None:
    behind = {name for name, activation in ACTIVATIONS.items() if isinstance(pooled(activation())[0], nn.MaxPool2d)}
    assert behind == {"relu", "leaky_relu", "elu"}


def test_xavier_and_he_draw_their_variances_and_zero_biases() -> None:
    fan_in, fan_out = 128 * 9, 256 * 9  # for a 3x3 convolution from 128 to 256 channels
    torch.manual_seed(0)
    for init, variance in {"xavier": 2 / (fan_in + fan_out), "he": 2 / fan_in}.items():
        layer = CNN(init=init).conv_layers[8]
        assert layer.weight.std().item() == pytest.approx(variance**0.5, rel=0.01)
        assert layer.bias.abs().max() == 0


def test_default_initialisation_is_pytorchs() -> None:
    torch.manual_seed(3)
    ours = CNN().conv_layers[0].weight
    torch.manual_seed(3)
    assert torch.equal(ours, nn.Conv2d(3, 64, 3, padding=1).weight)


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        *((CNN, {"filters": (1, 2)}), (CNN, {"init": "glorot"})),
        *((VGG, {"stages": stages}) for stages in ([], [[1]] * 6, [[1], []])),
        (ResNet, {"blocks": (1, 1), "widths": (4,)}),
    ],
)
def test_impossible_arguments_are_refused(model: type[nn.Module], arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}="):
        model(**arguments)
