"""Batches are complete, normalised as by torchvision, and depend only on seed, epoch and index."""

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from cifar_lab.data.augment import AlternatingFlip, _first_flips, flip_crop
from cifar_lab.data.images import LabelledImages
from cifar_lab.data.loader import Augmentation, BatchLoader, normalise
from tests.data.pictures import random_images

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def numbered_images(count: int = 23) -> LabelledImages:
    """Random images, labelled by their index."""
    return LabelledImages(random_images(count), torch.arange(count))


def shuffled_loader(batch_size: int = 5, seed: int = 0, augment: Augmentation | None = flip_crop) -> BatchLoader:
    return BatchLoader(numbered_images(), batch_size, MEAN, STD, augment=augment, shuffle=True, seed=seed)


def order(loader: BatchLoader, epoch: int = 0) -> list[int]:
    loader.set_epoch(epoch)
    return [label for _, labels in loader for label in labels.tolist()]


def batch(loader: BatchLoader, epoch: int, index: int) -> tuple[Tensor, Tensor]:
    loader.set_epoch(epoch)
    return next(itertools.islice(loader, index, None))


def test_normalising_equals_torchvision() -> None:
    images = numbered_images().images
    images[0, :16, :16] = torch.arange(256, dtype=torch.uint8).view(16, 16, 1)
    ours = normalise(images, torch.tensor(MEAN), torch.tensor(STD))
    theirs = tvf.normalize(tvf.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True), list(MEAN), list(STD))
    assert ours.shape == (23, 3, 32, 32) and ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last) and ours.stride() == (3072, 1, 96, 3)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(23, 5, [5, 5, 5, 5, 3]), (10, 5, [5, 5]), (3, 5, [3])])
def test_every_image_comes_once_with_its_label_and_the_last_batch_holds_the_rest(
    shuffle: bool, count: int, batch_size: int, sizes: list[int]
) -> None:
    data = numbered_images(count)
    loader = BatchLoader(data, batch_size, MEAN, STD, shuffle=shuffle)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == sizes and len(loader) == len(sizes)
    assert torch.cat([labels for _, labels in batches]).sort().values.tolist() == list(range(count))
    for images, labels in batches:
        assert torch.equal(images, normalise(data.images[labels], torch.tensor(MEAN), torch.tensor(STD)))


def test_the_order_depends_only_on_seed_and_epoch_and_is_fixed_without_shuffling() -> None:
    plain = BatchLoader(numbered_images(), 5, MEAN, STD, seed=3)
    assert order(plain, epoch=0) == order(plain, epoch=1) == list(range(23))
    orders = {(seed, epoch): order(shuffled_loader(seed=seed), epoch) for seed in range(4) for epoch in range(4)}
    assert len(set(map(tuple, [*orders.values(), range(23)]))) == 16 + 1
    for options in ({}, {"batch_size": 7}, {"augment": None}):
        torch.rand(1)
        assert order(shuffled_loader(seed=2, **options), epoch=3) == orders[2, 3]


def test_every_batch_is_augmented_with_its_own_draws_and_not_with_those_of_the_order() -> None:
    drawn = []

    def record(images: Tensor, generator: torch.Generator) -> Tensor:
        drawn.append(torch.randperm(23, generator=generator).tolist())
        return images

    orders = [order(shuffled_loader(seed=seed, augment=record), epoch) for seed in range(3) for epoch in range(3)]
    assert len(drawn) == 3 * 3 * 5
    assert len({tuple(numbers) for numbers in (*drawn, *orders)}) == 3 * 3 * (5 + 1)


def test_a_batch_depends_only_on_seed_epoch_and_index() -> None:
    through = shuffled_loader(seed=1)
    for epoch in range(3):
        torch.manual_seed(epoch)
        through.set_epoch(epoch)
        for index, (expected, expected_labels) in enumerate(through):
            images, labels = batch(shuffled_loader(seed=1), epoch, index)
            assert torch.equal(images, expected) and torch.equal(labels, expected_labels)


def test_an_augmentation_by_visit_gets_each_images_place_in_all_parts_and_after_resuming() -> None:
    whole = shuffled_loader(augment=AlternatingFlip(padding=0), seed=4)
    whole.set_epoch(1)
    expected = list(whole)
    mirrored = {}
    for images, labels in expected:
        plain = normalise(whole.data.images[labels], torch.tensor(MEAN), torch.tensor(STD))
        mirrored |= dict(zip(labels.tolist(), (images != plain).flatten(1).any(1).tolist(), strict=True))
    first = _first_flips(4, 23).tolist()
    assert mirrored == {place: not flips for place, flips in enumerate(first)} and 0 < sum(first) < 23
    parts = [
        BatchLoader(whole.data, 5, MEAN, STD, whole.augment, shuffle=True, seed=4, part=(rank, 2)) for rank in range(2)
    ]
    for loader in parts:
        loader.set_epoch(1)
        loader.load_state_dict({"epoch": 1, "batches": 2})
    joined = [torch.cat([images for images, _ in batch]) for batch in zip(*parts, strict=True)]
    assert [images.tolist() for images in joined] == [images.tolist() for images, _ in expected[2:]]


def test_setting_the_epoch_changes_only_the_next_iteration() -> None:
    loader = shuffled_loader()
    expected = list(loader)
    iterator = iter(loader)
    batches = [next(iterator)]
    loader.set_epoch(1)
    batches += iterator
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)
    assert not torch.equal(batch(loader, 1, 1)[0], expected[1][0])
    assert torch.equal(loader.data.images, numbered_images().images)
