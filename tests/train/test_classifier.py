import copy
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from cifar_lab.data.datamodule import SyntheticDataModule
from cifar_lab.data.images import key_seed
from cifar_lab.train.classifier import Classifier
from tests.train.fits import Watch, fit, images, network


def watch_fit(classifier: Classifier, data: L.LightningDataModule | None = None, **options: Any) -> Watch:
    watch = Watch()
    fit(classifier, watch, data=data, enable_checkpointing=False, **options)
    return watch


SGD = partial(torch.optim.SGD, lr=0.1)


def test_training_equals_a_plain_loop() -> None:
    data = images()
    plain = network()
    classifier = Classifier(copy.deepcopy(plain), nn.CrossEntropyLoss(), SGD, grad_clip=0.5)
    watch = watch_fit(classifier, data, max_epochs=2)

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    loader = data.train_dataloader()
    losses, norms, first_norms = [], [], []
    for epoch in range(2):
        loader.set_epoch(epoch)
        for batch, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(plain(batch), labels)
            loss.backward()
            first_norms.append(plain[0].weight.grad.norm().item())
            norms.append(nn.utils.clip_grad_norm_(plain.parameters(), 0.5).item())
            optimizer.step()
            losses.append(loss.item())
    assert [step["step_loss"] for step in watch.steps] == pytest.approx(losses, rel=1e-5)
    assert [step["grad_norm"] for step in watch.steps] == pytest.approx(norms, rel=1e-4)
    assert [step["first_conv_grad_norm"] for step in watch.steps] == pytest.approx(first_norms, rel=1e-4)
    for ours, theirs in zip(classifier.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("limit", [0, None, 0.01])
def test_clipping_bounds_the_global_norm_of_a_step(limit: float | None) -> None:
    classifier = Classifier(network(), nn.CrossEntropyLoss(), SGD, grad_clip=limit)
    before = nn.utils.parameters_to_vector(classifier.model.parameters()).detach().clone()
    norm = watch_fit(classifier, max_steps=1).steps[0]["grad_norm"]
    moved = nn.utils.parameters_to_vector(classifier.model.parameters()).detach() - before
    assert norm > 0.01
    assert moved.norm().item() == pytest.approx(0.1 * (limit or norm), rel=1e-3)


def test_l1_adds_the_sum_over_all_trainable_parameters_only_to_the_objective() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    norm = sum(weight.abs().sum().item() for weight in model.parameters() if weight.requires_grad)
    frozen = partial(torch.optim.SGD, lr=0.0)
    with_penalty = watch_fit(Classifier(copy.deepcopy(model), nn.CrossEntropyLoss(), frozen, l1=0.01)).epochs[0]
    without = watch_fit(Classifier(model, nn.CrossEntropyLoss(), frozen)).epochs[0]
    assert with_penalty["train/loss"] == pytest.approx(without["train/loss"], rel=1e-6)
    assert without["train/objective"] == without["train/loss"]
    assert with_penalty["train/objective"] == pytest.approx(without["train/loss"] + 0.01 * norm, rel=1e-5)


def test_epoch_metrics_are_means_over_images_not_batches() -> None:
    data = images()  # 54 training images in batches of 16: the last one has 6
    classifier = Classifier(network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.0))
    metrics = watch_fit(classifier, data).epochs[0]
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        batches = list(loader)
        logits = torch.cat([classifier(batch) for batch, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        expected = nn.functional.cross_entropy(logits, labels).item()
        assert metrics[f"{split}/loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics[f"{split}/acc"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_the_test_counts_every_image_in_the_confusion_matrix() -> None:
    data = images()
    classifier = Classifier(network(), nn.CrossEntropyLoss(), SGD)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    for _ in range(2):  # a second test starts from zero
        (metrics,) = trainer.test(classifier, data, verbose=False)
        counts = classifier.test_confusion.compute()
        assert counts.sum() == 20
        assert metrics["test/acc"] == pytest.approx(counts.trace().item() / 20)
    (images_, labels), *_ = data.test_dataloader()
    expected = torch.zeros(10, 10, dtype=torch.int64)
    expected.index_put_((labels, classifier(images_).argmax(1)), torch.ones(1, dtype=torch.int64), accumulate=True)
    assert torch.equal(counts, expected)


def test_a_step_is_the_mean_over_its_batches_including_an_epochs_last_step() -> None:
    classifier, expected = Classifier(network(), nn.CrossEntropyLoss(), SGD), network()
    data = images()
    fit(classifier, data=data, accumulate_grad_batches=3, enable_checkpointing=False)
    loader = data.train_dataloader()
    loader.set_epoch(0)
    batches = list(loader)
    optimizer = SGD(expected.parameters())
    for window in (batches[:3], batches[3:]):
        losses = [nn.functional.cross_entropy(expected(batch), labels) for batch, labels in window]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    for trained, weight in zip(classifier.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(trained, weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("interval", "rates", "logged"),
    [
        ("epoch", [0.1] * 4 + [0.05] * 4, [0.1, 0.05]),
        ("step", [0.1 / 2**step for step in range(8)], [0.1 / 2**3, 0.1 / 2**7]),
    ],
)
def test_a_scheduler_steps_once_per_epoch_or_step_and_the_last_rate_used_is_logged(
    interval: str, rates: list[float], logged: list[float]
) -> None:
    decay = {"scheduler": partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5), "interval": interval}
    watch = watch_fit(Classifier(network(), nn.CrossEntropyLoss(), SGD, decay), max_epochs=2)
    assert [step["step_lr"] for step in watch.steps] == pytest.approx(rates)
    assert [epoch["train/lr"] for epoch in watch.epochs] == pytest.approx(logged)


@pytest.mark.parametrize(
    ("every", "rates"), [(1, [0.1, 0.1, 0.05, 0.025]), (2, [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025])]
)
def test_a_plateau_schedule_sees_the_loss_of_each_validated_epoch_once(every: int, rates: list[float]) -> None:
    # No loss falls by that threshold, so every validation but the first halves the rate.
    factory = partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9, threshold_mode="abs"
    )
    plateau = {"scheduler": factory, "interval": "epoch", "monitor": "val/loss"}
    classifier = Classifier(network(), nn.CrossEntropyLoss(), SGD, plateau)
    assert watch_fit(classifier, max_epochs=len(rates), check_val_every_n_epoch=every).rates == pytest.approx(rates)


def test_logits_are_float32_under_autocast_in_the_requested_layout() -> None:
    seen: list[Tensor] = []
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], module.weight]))
    classifier = Classifier(model, nn.CrossEntropyLoss(), SGD, memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(torch.randn(2, 3, 32, 32))
    assert logits.dtype == torch.float32
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


def test_flops_are_two_per_multiply_add() -> None:
    classifier = Classifier(network(), nn.CrossEntropyLoss(), SGD)
    assert classifier.flops_per_image() == 2 * (64 * 4 * 3 * 9 + 4 * 64 * 10)
    assert classifier.training


def test_a_model_without_convolutions_has_no_first_convolution_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    watch = watch_fit(Classifier(model, nn.CrossEntropyLoss(), SGD))
    assert all(step["first_conv_grad_norm"] != step["first_conv_grad_norm"] for step in watch.steps)
    assert all(step["grad_norm"] > 0 for step in watch.steps)


def test_the_evaluation_batch_size_changes_neither_counts_nor_means(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, measured = Classifier(network(), nn.CrossEntropyLoss(), SGD), []
    for size in (7, 100):
        monkeypatch.setattr("cifar_lab.data.in_memory._CPU_EVAL_BATCH_SIZE", size)
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        (metrics,) = trainer.test(classifier, SyntheticDataModule(60, 120), verbose=False)
        assert trainer.num_test_batches == [-(-120 // size)]
        measured.append(metrics)
    assert measured[0]["test/acc"] == measured[1]["test/acc"]
    assert measured[0]["test/loss"] == pytest.approx(measured[1]["test/loss"], rel=1e-6)


def test_a_batchs_draws_depend_only_on_seed_epoch_and_batch() -> None:
    def draws(seed: int, batch: int) -> list[float]:
        torch.rand(3)
        classifier = Classifier(network(), nn.CrossEntropyLoss(), SGD, seed=seed)
        L.Trainer(accelerator="cpu", logger=False).strategy.connect(classifier)
        classifier.seed_draws(batch)
        drawn = torch.rand(2).tolist()
        torch.manual_seed(key_seed(2, seed, 0, batch))
        assert drawn == torch.rand(2).tolist()
        return drawn

    assert draws(0, 1) == draws(0, 1)
    assert draws(0, 1) != draws(0, 2) and draws(0, 1) != draws(1, 1)
