"""The arithmetic of processes that train together, with one process standing for each of them in turn."""

import os
import pickle
import signal
import warnings
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifar_lab.data.augment import flip_crop, identity
from cifar_lab.data.cutout import cutout
from cifar_lab.data.loader import BatchLoader
from cifar_lab.data.mixing import CutMix, MixUp
from cifar_lab.data.randaugment import randaugment
from cifar_lab.machine import ranks
from cifar_lab.machine.interruption import Interrupted, Interruption
from cifar_lab.runs import FollowedRun, Run
from cifar_lab.train.callbacks import Saving
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.metrics import Mean, SplitMetrics
from tests.data.test_loader import MEAN, STD, numbered_images
from tests.train.fits import network

COUNT = 3


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the process of each `rank`, which a test sets."""
    process = SimpleNamespace(rank=0)
    monkeypatch.setattr(ranks, "count", lambda: COUNT)
    monkeypatch.setattr(ranks, "rank", lambda: process.rank)
    return process


@pytest.mark.parametrize("of", [0, 1, 2, 3, 4, 7, 128, 129])
@pytest.mark.parametrize("among", [1, 2, 3, 8])
def test_joined_parts_are_the_whole_and_their_sizes_differ_by_at_most_one(of: int, among: int) -> None:
    parts = [list(range(of))[ranks.share(of, number, among)] for number in range(among)]
    assert list(chain(*parts)) == list(range(of))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def loader(part: tuple[int, int] = (0, 1), **options: object) -> BatchLoader:
    return BatchLoader(numbered_images(), 5, MEAN, STD, part=part, shuffle=True, num_classes=23, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("augment", [None, identity, flip_crop, cutout, randaugment, MixUp(), CutMix()])
@pytest.mark.parametrize("among", [2, 3])
def test_the_joined_parts_of_a_batch_equal_the_batch_bitwise(augment: object, among: int) -> None:
    own = [loader((number, among), augment=augment) for number in range(among)]
    for each in (whole := loader(augment=augment), *own):
        each.set_epoch(4)
    for (images, labels), *parts in zip(whole, *own, strict=True):
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_a_part_resumes_within_an_epoch_and_can_become_the_whole_loader_again() -> None:
    first, again = loader((1, 2), augment=flip_crop), loader((1, 2), augment=flip_crop)
    batches = list(first)
    taken = iter(first)
    next(taken), next(taken)
    again.load_state_dict(first.state_dict())
    for (one, _), (other, _) in zip(batches[2:], again, strict=True):
        assert torch.equal(one, other)
    assert [len(labels) for _, labels in first.whole()] == [5, 5, 5, 5, 3]
    assert first.to(torch.device("cpu")).part == (1, 2)


def classifier(l1: float) -> Classifier:
    return Classifier(network(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1), l1=l1)


@pytest.mark.parametrize("size", [12, 7])
@pytest.mark.parametrize("l1", [0.0, 1e-3])
def test_the_mean_of_uneven_parts_gradients_is_the_batchs(
    together: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, size: int, l1: float
) -> None:
    images, labels = torch.randn(size, 3, 32, 32), torch.arange(size) % 10
    parts = [(images[part], labels[part]) for part in (ranks.share(size, number, COUNT) for number in range(COUNT))]
    module = classifier(l1)
    losses = [nn.functional.cross_entropy(module(part), target).detach() * len(target) for part, target in parts]
    monkeypatch.setattr(ranks, "total", lambda values: torch.stack([torch.stack(losses).sum(), torch.tensor(size)]))
    gradients: list[list[Tensor]] = []
    for together.rank, batch in enumerate(parts):
        module.zero_grad()
        module.training_step(batch, 0).backward()
        gradients.append([weight.grad.clone() for weight in module.parameters() if weight.grad is not None])
    told = module.step_loss
    monkeypatch.setattr(ranks, "count", lambda: 1)
    module.zero_grad()
    module.training_step((images, labels), 0).backward()
    for weight, *grads in zip(module.parameters(), *gradients, strict=True):
        torch.testing.assert_close(torch.stack(grads).mean(0), weight.grad)
    torch.testing.assert_close(told, module.step_loss)


def test_no_two_processes_draw_the_same_dropout(together: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    module = classifier(0.0)

    def drawn() -> tuple[float, ...]:
        module.seed_draws(5)
        return tuple(torch.rand(4).tolist())

    draws = {drawn() for together.rank in range(COUNT) for _ in range(2)}
    monkeypatch.setattr(ranks, "count", lambda: 1)
    assert len({*draws, drawn()}) == COUNT + 1


def measure(part: slice) -> SplitMetrics:
    metrics = SplitMetrics(10, objective=Mean())
    logits, labels = torch.eye(10)[torch.arange(8) % 7], torch.arange(8)
    values = torch.arange(8.0)[part].mean()
    metrics.update(logits[part], labels[part], loss=values, objective=2 * values)
    return metrics


def metric_values(metrics: SplitMetrics) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that nothing was measured since the sums were loaded
        return {name: float(value) for name, value in metrics.compute("train").items()}


def test_each_process_resumes_with_its_own_sums_and_a_different_number_of_them_with_the_total(
    together: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [measure(ranks.share(8, number, COUNT)) for number in range(COUNT)]
    everybody = [{name: dict(metric.metric_state) for name, metric in each._metrics()} for each in parts]
    monkeypatch.setattr(ranks, "gathered", lambda value: everybody)
    saved = parts[0].sums()
    for together.rank in range(COUNT):
        (again := SplitMetrics(10, objective=Mean())).load_sums(saved)
        assert metric_values(again) == metric_values(parts[together.rank])
    monkeypatch.setattr(ranks, "count", lambda: 1)
    together.rank = 0
    (alone := SplitMetrics(10, objective=Mean())).load_sums(saved)
    assert metric_values(alone) == metric_values(measure(slice(None)))
    before = metric_values(alone)
    alone.update(torch.empty(0, 10), torch.empty(0, dtype=torch.int64), loss=torch.tensor(float("nan")))
    assert metric_values(alone) == before  # a part without images contributes nothing
    saved, counts = alone.sums(), []
    monkeypatch.setattr(ranks, "count", lambda: COUNT)
    for together.rank in range(COUNT):  # the first rank gets the sums of fewer processes
        (again := SplitMetrics(10, objective=Mean())).load_sums(saved)
        counts.append(float(again.loss.count))
    assert counts == [8.0, 0.0, 0.0]


def test_a_signal_to_a_different_rank_stops_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interruption = Interruption()
    saving = Saving(Run(tmp_path), interruption)
    assert not saving._agreed(due=False)
    monkeypatch.setattr(ranks, "largest", lambda values: [1, 0])
    assert saving._agreed(due=False)
    interruption.check()
    monkeypatch.setattr(ranks, "largest", lambda values: [0, int(signal.SIGTERM)])
    assert saving._agreed(due=False)
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        interruption.check()
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.exit_code) == ("SIGTERM", 143)


def test_other_ranks_do_not_write_the_run(tmp_path: Path) -> None:
    run, model = FollowedRun(tmp_path), nn.Linear(2, 2)
    run.set_state("running", step=3)
    run.append_metrics({"epoch": 1})
    run.write_steps({"loss": np.zeros(3)})
    run.write_probes({"step": np.zeros(3)})
    run.truncate(0, 0)
    run.save_weights(model, "weights.pth")
    run.save_snapshot(model, 0)
    assert os.listdir(tmp_path) == []


def test_a_single_process_does_not_wait() -> None:
    values = torch.ones(2)
    assert (ranks.count(), ranks.rank()) == (1, 0)
    assert ranks.total(values) is values
    assert ranks.largest([1, 2]) == [1, 2]
    assert ranks.gathered("a") == ["a"] and ranks.first_of("a") == "a"
