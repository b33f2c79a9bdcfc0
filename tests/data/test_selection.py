"""Passes skip images whose last loss was low, and a resumed loader continues with the same batches."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cifar_lab.data.augment import AlternatingFlip
from cifar_lab.data.loader import BatchLoader
from cifar_lab.data.selection import Selection
from tests.data.test_loader import MEAN, STD, numbered_images, order

COUNT = 400


def _selection(losses: Tensor, skip_easy: float = 0.6) -> Selection:
    selection = Selection(len(losses), skip_easy)
    selection.losses.copy_(losses)
    selection.begin()
    return selection


def test_an_image_below_the_mean_loss_is_skipped_with_the_given_probability_and_others_never() -> None:
    losses = torch.cat([torch.full((3 * COUNT,), 0.1), torch.full((COUNT,), 2.0)])[torch.randperm(4 * COUNT)]
    selection = _selection(losses)
    visits = torch.zeros(4 * COUNT)
    for epoch in range(50):
        chosen = selection.order(0, 0, epoch)
        assert len(chosen) == 4 * COUNT
        visits += torch.bincount(chosen, minlength=4 * COUNT)
    hard, easy = visits[losses > 1], visits[losses < 1]
    # A pass visits all hard images and 40 % of the easy ones, a share of 0.55.
    assert hard.mean() / 50 == pytest.approx(1 / 0.55, rel=0.02)
    assert easy.mean() / hard.mean() == pytest.approx(0.4, rel=0.05)
    first = selection.order(0, 0, 0)[: int(0.5 * 4 * COUNT)]
    assert len(first.unique()) == len(first)  # no image is visited twice within a pass
    assert not torch.equal(selection.order(0, 0, 1), selection.order(0, 0, 2))


def test_the_first_epoch_is_one_full_pass_and_the_mean_is_taken_at_an_epochs_start() -> None:
    selection = Selection(COUNT, 0.9)
    selection.begin()
    assert selection.order(0, 0, 0).sort().values.tolist() == list(range(COUNT))
    selection = _selection(torch.arange(float(COUNT)))
    expected = selection.order(0, 0, 1)
    selection.losses.zero_()
    assert torch.equal(selection.order(0, 0, 1), expected)


def _loader(skip_easy: float = 0.7) -> BatchLoader:
    selection = Selection(40, skip_easy) if skip_easy else None
    flip = AlternatingFlip(padding=0)
    return BatchLoader(numbered_images(40), 6, MEAN, STD, flip, shuffle=True, selection=selection)


def _visit(loader: BatchLoader, epoch: int, stop: int | None = None) -> list[tuple[list[int], Tensor]]:
    """Visit batches of an epoch; an image's loss is its squared label divided by its place in the batch."""
    loader.set_epoch(epoch)
    seen = []
    for index, (images, labels) in enumerate(loader):
        loader.note(labels.float() ** 2 / (1 + torch.arange(len(labels))))
        seen.append((labels.tolist(), images))
        if index + 1 == stop:
            break
    return seen


@pytest.mark.parametrize("stop", [0, 3, 7])
def test_a_resumed_loader_continues_bitwise(stop: int) -> None:
    whole, cut = _loader(), _loader()
    for epoch in range(2):
        _visit(whole, epoch)
        _visit(cut, epoch)
    expected = [*_visit(whole, 2), *_visit(whole, 3)]
    seen = _visit(cut, 2, stop) if stop else []
    resumed = _loader()
    assert resumed.selection is not None and cut.selection is not None
    resumed.load_state_dict(cut.state_dict())
    resumed.selection.load_state_dict(cut.selection.state_dict())
    seen += [*(_visit(resumed, 2) if stop < 7 else []), *_visit(resumed, 3)]
    assert [labels for labels, _ in seen] == [labels for labels, _ in expected]
    assert all(torch.equal(images, other) for (_, images), (_, other) in zip(seen, expected, strict=True))


def test_an_image_is_mirrored_at_every_other_visit_however_often_an_epoch_visits_it() -> None:
    loader = _loader(0.9)
    views: dict[int, list[Tensor]] = {}
    for epoch in range(4):
        for labels, images in _visit(loader, epoch):
            for label, image in zip(labels, images, strict=True):
                views.setdefault(label, []).append(image)
    assert max(map(len, views.values())) > 4 > min(map(len, views.values()))
    for of_image in views.values():
        for before, after in pairwise(of_image):
            assert torch.equal(before.flip(2), after)


def test_without_losses_the_order_is_that_of_an_ordinary_loader() -> None:
    ordinary = _loader(0.0)
    assert ordinary.selection is None
    ordinary.note(torch.zeros(1))
    counts = Counter(order(ordinary, 3))
    assert set(counts.values()) == {1} and len(counts) == 40
