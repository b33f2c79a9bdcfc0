import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch import nn

from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import Run
from cifar_lab.train.callbacks import EMA, SWA, Saving, best
from cifar_lab.train.classifier import Classifier
from tests.comparison import equal
from tests.conftest import TINY
from tests.train import fits
from tests.train.fits import Watch, images, network


def fit(
    averaging: WeightAveraging, folder: Path, epochs: int, scheduler: dict[str, Any] | None = None
) -> tuple[Watch, Classifier, Run]:
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    classifier = Classifier(network(nn.BatchNorm2d(4)), nn.CrossEntropyLoss(), optimizer, scheduler)
    watch, run = Watch(), Run(folder)
    callbacks = [watch, averaging, best(run), Saving(run, Interruption())]
    fits.fit(classifier, *callbacks, data=images(seed=3), max_epochs=epochs)
    return watch, classifier, run


def test_swas_batch_norm_statistics_come_from_the_training_images(tmp_path: Path) -> None:
    _, classifier, _ = fit(SWA(epochs=3, start=0.3), tmp_path, epochs=3)
    convolution, norm = classifier.model[0], classifier.model[1]
    loader = images(seed=3).train_dataloader()
    loader.set_epoch(3)
    means, variances = [], []
    for batch, _ in loader:
        features = convolution(batch).detach()
        means.append(features.mean(dim=(0, 2, 3)))
        variances.append(features.var(dim=(0, 2, 3)))
    # The plain mean over batches, as in torch's update_bn.
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-6)
    assert norm.momentum == 0.1


def test_swas_rate_follows_the_schedule_and_then_moves_to_its_own(tmp_path: Path) -> None:
    factory = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=10)
    scheduler = {"scheduler": factory, "interval": "epoch"}
    watch, _, _ = fit(SWA(epochs=10, start=0.5, anneal=0.2, lr=0.3), tmp_path, 10, scheduler)
    cosine = [0.1 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 10)).item()) / 2 for epoch in range(6)]
    # Epoch 5, the first averaged one, still uses the cosine's rate; the next is halfway to SWA's own rate, the rest use
    # it.
    assert watch.rates == pytest.approx([*cosine, (cosine[5] + 0.3) / 2, 0.3, 0.3, 0.3], rel=1e-5)


def test_swas_weights_are_the_mean_of_the_last_epochs_and_are_validated_and_saved(tmp_path: Path) -> None:
    watch, classifier, run = fit(SWA(epochs=4, start=0.5), tmp_path, epochs=4)
    last = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
    for name, weight in classifier.model.named_parameters():
        mean = (watch.weights["epoch"][2][name] + watch.weights["epoch"][3][name]) / 2
        torch.testing.assert_close(weight.detach(), mean, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(last[f"model.{name}"], mean, rtol=1e-5, atol=1e-7)
    assert equal(watch.weights["validation"], watch.weights["epoch"])
    best = torch.load(run.best_checkpoint, weights_only=True)
    if best["epoch"] < 2:
        assert torch.equal(best["state_dict"]["model.4.weight"], watch.weights["epoch"][best["epoch"]]["4.weight"])


def test_swa_without_an_epoch_to_average_is_refused() -> None:
    with pytest.raises(ValueError, match=r"averaging\.start=0\.8 .*\b2\b"):
        SWA(epochs=2, start=0.8)


@pytest.mark.parametrize(("decay", "warmup"), [(0.7, False), (0.25, True)])
def test_emas_weights_and_statistics_are_the_moving_average_over_every_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], decay: float, warmup: bool
) -> None:
    watch, classifier, run = fit(EMA(decay=decay, warmup=warmup), tmp_path, epochs=2)
    told = re.findall(rf"averaging\.decay={decay}\b.*\b6%.*\baveraging\.warmup=true", capfd.readouterr().out)
    assert len(told) == (not warmup)  # 0.7 ** 8 of the first step's weights remain
    assert len(watch.weights["step"]) == 8
    for name, value in classifier.model.state_dict().items():
        if not value.is_floating_point():
            continue
        average = watch.weights["step"][0][name]
        for n, step in enumerate(watch.weights["step"][1:], 1):
            share = min(decay, (1 + n) / (10 + n)) if warmup else decay
            average = share * average + (1 - share) * step[name]
        torch.testing.assert_close(value, average, rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, watch.weights["step"][-1][name])
    # Validation and the checkpoint use the averaged weights.
    states = dict(classifier.model.state_dict())
    assert equal(watch.weights["validation"][-1], states)
    saved = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(saved[f"model.{name}"], value) for name, value in states.items())


@pytest.mark.parametrize("options", [{}, {"use_buffers": False}, {"update_every_n_steps": 3}])
def test_ema_equals_lightnings_own_up_to_rounding(tmp_path: Path, options: dict[str, Any]) -> None:
    _, ours, _ = fit(EMA(decay=0.7, **options), tmp_path / "ours", epochs=2)
    _, lightnings, _ = fit(EMAWeightAveraging(decay=0.7, **options), tmp_path / "lightnings", epochs=2)
    torch.testing.assert_close(ours.model.state_dict(), lightnings.model.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("averaging", ["swa", "ema"])
def test_double_precision_weights_are_averaged_in_double_precision(lab: Any, averaging: str) -> None:
    words = ("logger=none", "epochs=5", f"averaging={averaging}", "trainer.precision=64-true")
    outcome = lab(*TINY, *words, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.stderr
    weights = torch.load(Run("run").last_checkpoint, weights_only=True)["state_dict"].values()
    assert {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.float64}
