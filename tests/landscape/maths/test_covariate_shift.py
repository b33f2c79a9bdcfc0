import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab.landscape.maths.covariate_shift import covariate_shift, layers
from cifar_lab.landscape.maths.functional import NetworkLoss, moved, value_and_gradient
from cifar_lab.models import VGG


def test_a_layer_includes_its_bias_and_the_batch_norm_after_it():
    model = VGG(stages=[[4], [4]], hidden=5, batch_norm=True)
    found = layers(dict(model.named_parameters()))
    assert found["features.0"] == [f"features.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
    assert found["classifier.4"] == ["classifier.4.weight", "classifier.4.bias"]
    assert list(found) == ["features.0", "features.4", "classifier.0", "classifier.2", "classifier.4"]
    assert [name for names in found.values() for name in names] == [name for name, _ in model.named_parameters()]


def test_the_shift_is_that_of_steps_taken_layer_by_layer_and_a_zero_gradient_has_no_angle():
    torch.manual_seed(0)
    model = VGG(stages=[[4], [4]], hidden=5, batch_norm=True)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    loss = NetworkLoss(model, nn.CrossEntropyLoss(), images, labels)
    weights = loss.weights()
    _, gradient = value_and_gradient(loss, weights)
    found = layers(weights)
    shift = covariate_shift(loss, weights, moved(weights, gradient, -0.5), list(found.values()))

    parameters = dict(model.named_parameters())
    for number, names in enumerate(found.values()):
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        after = torch.cat([parameters[name].grad.flatten() for name in names])
        before = torch.cat([gradient[name].flatten() for name in names])
        assert shift.gradient_norm[number] == pytest.approx(float(before.norm()), rel=1e-4)
        assert shift.distance[number] == pytest.approx(float((before - after).norm()), rel=1e-3, abs=1e-6)
        assert shift.cosine[number] == pytest.approx(float(nn.functional.cosine_similarity(before, after, 0)), rel=1e-4)
        with torch.no_grad():
            for name in names:
                parameters[name] -= 0.5 * gradient[name]
    weights = {"w": torch.ones(2, 2), "v": torch.ones(2, 2)}
    shift = covariate_shift(lambda w: w["w"].sum() + 0 * w["v"].sum(), weights, weights, [["w"], ["v"]])
    assert np.isnan(shift.cosine[1])
    assert shift.gradient_norm == pytest.approx([2, 0])
