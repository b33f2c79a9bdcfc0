"""No network trains in channels_last if oneDNN gets its gradient wrong: strided 1x1 convolutions with few channels.

A failing test may also hang or crash, because that is the fault's effect.
"""

import pytest
import torch
from torch import nn

from cifar_lab.benchmark.loops import Variant, best
from cifar_lab.config import build, resolved
from cifar_lab.machine import hardware
from cifar_lab.runs import Run
from cifar_lab.train import cost
from cifar_lab.train.assembly import make_classifier
from cifar_lab.train.classifier import Classifier
from cifar_lab.trained import load
from tests.conftest import TINY, Compose, Lab, Train

DATA = tuple(word for word in TINY if not word.startswith("model."))
NARROW = (*DATA, "model=resnet14", "model.widths=[4,4,8]", "model.blocks=[1,1,1]", "logger=none", "epochs=1")
LAYER = "layer2.0.shortcut.0"


class Stem(nn.Module):
    """A user's network that reads every other pixel."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.stem, self.head = layer, nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(images).flatten(1))


class OwnConv2d(nn.Conv2d):
    """A user's convolution class."""


@pytest.mark.parametrize(
    ("layer", "is_safe"),
    [
        (nn.Conv2d(3, 8, 1, stride=2), False),
        (nn.Conv2d(15, 9, 1, stride=(1, 3)), False),
        (nn.Conv2d(32, 32, 1, stride=2, groups=8), False),
        (OwnConv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(16, 8, 1, stride=2), True),
        (nn.Conv2d(3, 8, 1), True),
        (nn.Conv2d(3, 8, 2, stride=2), True),
        (nn.Conv2d(3, 8, (1, 3), stride=2), True),
    ],
    ids=lambda value: value if isinstance(value, bool) else str(value),
)
def test_a_strided_1x1_convolution_of_few_channels_is_found(layer: nn.Conv2d, is_safe: bool) -> None:
    network = Stem(layer)
    found = hardware.misgraded_layer(network)
    assert (found is None) == is_safe
    assert is_safe or str(found).startswith("stem,")
    for asked in (torch.channels_last, torch.contiguous_format):
        expected = asked if is_safe else torch.contiguous_format
        assert hardware.safe_memory_format(network, asked) == expected


def test_training_is_contiguous_with_a_note_and_a_record(lab: Lab) -> None:
    outcome = lab(*NARROW, "trainer.memory_format=channels_last", "probe=gradient", "probe.every=5")
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    (note,) = (line for line in outcome.stdout.splitlines() if line.startswith("note: "))
    assert LAYER in note
    assert run.status()["memory_format"] == "contiguous"
    assert run.result()["memory_format"] == "contiguous_format"
    assert torch.isfinite(torch.from_numpy(run.probes()["grad_norm"])).all()


def test_the_gradient_equals_that_of_float64(composed: Compose) -> None:
    config = composed(*NARROW, "trainer.memory_format=channels_last", "batch_size=16")
    data = build(config.data)
    classifier = make_classifier(config, data, hardware.choose("cpu", "32-true", "channels_last"))
    assert classifier.memory_format == torch.contiguous_format
    images, labels = next(iter(data.train_dataloader()))
    exact = make_classifier(config, data, hardware.choose("cpu", "64-true")).double()
    exact.load_state_dict(classifier.state_dict())
    for module, batch in ((classifier, images), (exact, images.double())):
        module.loss(module(batch), labels).backward()
    for (name, weight), other in zip(classifier.model.named_parameters(), exact.model.parameters(), strict=True):
        torch.testing.assert_close(weight.grad.double(), other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_users_network_is_contiguous_in_a_plain_classifier() -> None:
    network = Stem(nn.Conv2d(3, 8, 1, stride=2))
    classifier = Classifier(network, nn.CrossEntropyLoss(), torch.optim.SGD, memory_format=torch.channels_last)
    assert classifier.memory_format == torch.contiguous_format
    seen: list[torch.Tensor] = []
    network.stem.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    classifier(torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last))
    assert seen[0].is_contiguous()


def test_commands_on_trained_networks_and_a_resumed_run_are_contiguous(trained: Train, lab: Lab) -> None:
    run = trained(*NARROW)
    run.set_state("finished", memory_format="channels_last")  # as recorded by an older version
    network = load(run.folder)
    assert network.native.layout == "contiguous"
    assert any(LAYER in line for line in network.assumed)
    assert all(weight.is_contiguous() for weight in network.model.parameters())
    run.result_file.unlink()
    run.set_state("interrupted")
    outcome = lab("resume=run")
    assert outcome.code == 0, outcome.stderr
    assert Run("run").result()["memory_format"] == "contiguous_format"


def test_the_loops_of_the_benchmark_and_the_forecast_are_contiguous(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*NARROW)
    waited: list[hardware.Native] = []

    class Watch:
        def wait(self, native: hardware.Native) -> None:
            waited.append(native)
            raise StopIteration

    with pytest.raises(RuntimeError):  # StopIteration raised inside a generator
        next(best(config, Watch(), Variant(memory_format="channels_last")))  # type: ignore[arg-type]
    assert waited[0].layout == "contiguous"

    inputs: list[torch.Tensor] = []
    forward = nn.Conv2d.forward

    def seen(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        inputs.append(images)
        return forward(layer, images)

    monkeypatch.setattr(nn.Conv2d, "forward", seen)
    cost.measure(resolved(config), seconds=0.0)
    assert all(images.is_contiguous() for images in inputs)
