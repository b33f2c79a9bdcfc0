"""The network of airbench compared with its paper."""

import pytest
import torch
from torch import Tensor, nn

from cifar_lab.data import synthetic
from cifar_lab.data.loader import normalise
from cifar_lab.models import SpeedCNN


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Normalised images `(200, 3, 32, 32)`."""
    raw = synthetic.generate(200, 10, 0)[0].images
    return normalise(raw, torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26]))


def test_its_first_convolution_whitens_patches_and_is_frozen(images: Tensor) -> None:
    model = SpeedCNN()
    model.fit_to(images)
    whitened = model.whiten(images).transpose(0, 1).flatten(1).detach()
    first, second = whitened.split(12)
    torch.testing.assert_close(first, -second)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(nn.functional.unfold(images, 2).transpose(0, 1).flatten(1)))
    expected = torch.diag((eigenvalues / (eigenvalues + 5e-4)).flip(0))
    torch.testing.assert_close(torch.cov(first), expected, atol=1e-3, rtol=0)
    assert not model.whiten.weight.requires_grad
    trained = SpeedCNN(whitening=False)
    weight = trained.whiten.weight.clone()
    trained.fit_to(images)
    assert torch.equal(trained.whiten.weight, weight) and trained.whiten.weight.requires_grad


def test_convolutions_start_as_the_identity_on_as_many_channels_as_possible() -> None:
    model = SpeedCNN((32, 48, 40), depth=3)
    features = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(model.groups[0].convs[0](features)[:, :24], features)
    features = torch.randn(2, 48, 8, 8)
    torch.testing.assert_close(model.groups[2].convs[0](features), features[:, :40])
    assert not torch.equal(SpeedCNN(init="he").groups[0].convs[0].weight, model.groups[0].convs[0].weight)


def test_a_blurred_pool_uses_all_pixels_and_commutes_with_mirroring() -> None:
    blurred, plain = SpeedCNN(blur_pool=True), SpeedCNN()
    features = torch.randn(2, 3, 31, 31)
    maxima = features.unfold(2, 2, 1).unfold(3, 2, 1).amax((4, 5))
    expected = maxima.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    pooled = blurred.groups[0].pool(features)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(blurred.groups[0].pool(features.flip(3)), pooled.flip(3))
    assert plain.groups[0].pool(features).shape == pooled.shape == (2, 3, 15, 15)
    assert not torch.equal(plain.groups[0].pool(features.flip(3)), plain.groups[0].pool(features).flip(3))
    assert blurred(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_residual_group_adds_its_first_output_before_the_last_activation() -> None:
    plain, residual = SpeedCNN((8, 8, 8), depth=3).eval(), SpeedCNN((8, 8, 8), depth=3, residual=True).eval()
    residual.load_state_dict(plain.state_dict())
    (group, other), features = (model.groups[1] for model in (plain, residual)), torch.randn(1, 8, 6, 6)
    shortcut = group.activations[0](group.norms[0](group.pool(group.convs[0](features))))
    inner = group.activations[1](group.norms[1](group.convs[1](shortcut)))
    last = group.norms[2](group.convs[2](inner))
    torch.testing.assert_close(group(features), group.activations[2](last))
    torch.testing.assert_close(other(features), group.activations[2](last + shortcut))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_logits_are_the_scaled_outputs_of_the_head(batch_norm: bool, images: Tensor) -> None:
    model = SpeedCNN((8, 8, 8), batch_norm=batch_norm, bn_momentum=0.25, logit_scale=0.5).eval()
    features = model.groups(model.activation(model.whiten(images[:4])))
    assert features.shape == (4, 8, 3, 3)
    torch.testing.assert_close(model(images[:4]), 0.5 * model.head(features.amax((2, 3))))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.25] * (6 if batch_norm else 0)
    assert not any(norm.weight.requires_grad for norm in norms) and all(norm.bias.requires_grad for norm in norms)
    assert all((conv.bias is None) == batch_norm for group in model.groups for conv in group.convs)


@pytest.mark.parametrize("arguments", [{"widths": (8, 8)}, {"depth": 0}])
def test_other_shapes_are_refused(arguments: dict[str, object]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        SpeedCNN(**arguments)  # type: ignore[arg-type]
