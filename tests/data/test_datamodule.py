"""Both protocols split the images as documented, and Lightning trains on them in a new order each epoch."""

import re
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_lab.data import cifar10
from cifar_lab.data.archives import CIFAR10
from cifar_lab.data.augment import flip_crop
from cifar_lab.data.datamodule import CIFAR10DataModule, InMemoryDataModule, SyntheticDataModule
from cifar_lab.data.files import FILES
from cifar_lab.data.images import DataError, LabelledImages
from cifar_lab.data.loader import BatchLoader
from cifar_lab.machine.exit_codes import UsageError
from tests.train.fits import fit

NUM_TRAIN, NUM_TEST = 200, 50


class NumberedDataModule(InMemoryDataModule):
    """Images whose first pixel is their number: 0 to 199 train, 200 to 249 test; the label is its last digit."""

    def __init__(self, **options: Any) -> None:
        # With these statistics, the normalised images are the numbers themselves.
        super().__init__(**{"mean": (0, 0, 0), "std": (1 / 255,) * 3, **options})
        self.num_loads = 0

    def load(self) -> tuple[LabelledImages, LabelledImages]:
        self.num_loads += 1
        numbers = torch.arange(NUM_TRAIN + NUM_TEST)
        images = numbers.to(torch.uint8)[:, None, None, None].repeat(1, 32, 32, 3)
        data = LabelledImages(images, numbers % 10)
        return data.take(numbers[:NUM_TRAIN]), data.take(numbers[NUM_TRAIN:])


def numbers(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].round().long().tolist()


def content(loader: BatchLoader) -> list[int]:
    """Return the numbers of the images in the loader's order."""
    return [number for images, _ in loader for number in numbers(images)]


def class_sizes(indices: list[int]) -> list[int]:
    counts = Counter(index % 10 for index in indices)
    return [counts[label] for label in range(10)]


def test_holdout_divides_the_training_images_once_and_leaves_the_test_images_alone() -> None:
    assert [NumberedDataModule().size(split) for split in ("train", "val", "test")] == [180, 20, 50], "the default"
    data = NumberedDataModule(val_fraction=0.2)
    train, val, test = map(content, (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()))
    assert len(train) == 160 and len(val) == 40
    assert sorted(train + val) == list(range(NUM_TRAIN))
    assert test == list(range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))
    assert class_sizes(train) == [16] * 10 and class_sizes(val) == [4] * 10
    data.setup("test")
    assert content(data.val_dataloader()) == val and data.num_loads == 1


def test_held_out_and_selected_images_depend_only_on_the_split_seed() -> None:
    def taken(**options: Any) -> tuple[list[int], list[int]]:
        data = NumberedDataModule(**{"train_size": 70, "split_seed": 1, **options})
        return content(data.val_dataloader()), sorted(content(data.train_dataloader()))

    first = taken()
    torch.manual_seed(1)
    assert first == taken(seed=5) == taken(batch_size=7)
    assert first[0] == taken(train_size=30)[0] == taken(augment=flip_crop)[0]
    assert all(one != other for one, other in zip(taken(split_seed=2), first, strict=True))


@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_train_size_draws_by_class_from_the_images_that_are_not_held_out(val_fraction: float) -> None:
    data = NumberedDataModule(val_fraction=val_fraction, train_size=70)
    train = content(data.train_dataloader())
    assert content(data.test_dataloader()) == list(range(200, 250))
    assert (content(data.val_dataloader()) == list(range(200, 250))) == (val_fraction == 0), "the report's protocol"
    assert len(set(train)) == 70 == data.size("train") and class_sizes(train) == [7] * 10
    assert not set(train) & set(content(data.val_dataloader()))
    assert data.train_available == round(NUM_TRAIN * (1 - val_fraction))
    data = NumberedDataModule(val_fraction=val_fraction, train_size=data.train_available)
    assert len(set(content(data.train_dataloader()))) == data.train_available


@pytest.mark.parametrize(
    ("options", "kind", "facts"),
    [
        *(
            ({"train_size": size, "val_fraction": part}, DataError, rf"^data\.train_size={size} .*\b{available}\b")
            for size, part, available in [(181, 0.1, 180), (201, 0, 200), (0, 0.5, 100)]
        ),
        *(
            ({"val_fraction": part}, DataError, rf"^protocol\.val_fraction={part} holds out (0|200) of 200 images$")
            for part in (0.001, 0.999)
        ),
        *(({"batch_size": size}, ValueError, f"batch_size={size}") for size in (0, -1)),
        *(({"val_fraction": part}, ValueError, f"val_fraction={part}") for part in (-0.1, 1.0, 1.5, float("nan"))),
    ],
)
def test_options_out_of_range_and_empty_or_too_large_parts_are_refused(
    options: dict[str, float], kind: type[ValueError], facts: str
) -> None:
    with pytest.raises(kind, match=facts):
        NumberedDataModule(**options).setup()


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 180), (50, 4), (60, 3), (180, 1), (500, 1)])
def test_steps_per_epoch_include_the_partial_batch(batch_size: int, steps: int) -> None:
    data = NumberedDataModule(batch_size=batch_size)
    assert data.steps_per_epoch == steps == len(list(data.train_dataloader()))


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 180), (50, 3), (60, 3), (180, 1)])
def test_an_incomplete_last_batch_is_left_out_on_request(batch_size: int, steps: int) -> None:
    data = NumberedDataModule(batch_size=batch_size, drop_last=True)
    loader = data.train_dataloader()
    assert data.steps_per_epoch == steps == len(loader)
    for one in (loader, loader.whole(), loader.to(torch.device("cpu"))):
        assert [len(labels) for _, labels in one] == [batch_size] * steps
    everything = NumberedDataModule(batch_size=batch_size)
    assert content(loader) == content(everything.train_dataloader())[: steps * batch_size]
    assert len(content(data.val_dataloader())) == 20 and len(content(data.test_dataloader())) == 50


def test_dropping_the_only_batch_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"^data\.drop_last=true .*batch_size=181\b.*\b180\b[^\n]*$"):
        NumberedDataModule(batch_size=181, drop_last=True).setup()


def test_only_training_batches_are_augmented_and_shuffled() -> None:
    def darken(images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(images)

    data = NumberedDataModule(augment=darken)
    assert content(data.train_dataloader()) == [0] * 180
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert any(content(loader)) and content(loader) == sorted(content(loader))


def test_mean_and_std_reach_the_batches_of_every_split() -> None:
    plain, data = NumberedDataModule(), NumberedDataModule(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        (pixels, _), (images, _) = (next(iter(getattr(one, loader)())) for one in (plain, data))
        for channel, (mean, std) in enumerate(((0.5, 0.1), (0.4, 0.2), (0.3, 0.4))):
            torch.testing.assert_close(images[:, channel], (pixels[:, channel] / 255 - mean) / std, rtol=0, atol=1e-5)


def test_synthetic_images_have_the_requested_sizes_and_vary_with_the_data_seed() -> None:
    data, again, other = (SyntheticDataModule(40, 20, data_seed=seed, val_fraction=0.25) for seed in (1, 1, 2))
    assert [data.size(split) for split in ("train", "val", "test")] == [30, 10, 20]
    (images, _), (same, _), (others, _) = (next(iter(one.test_dataloader())) for one in (data, again, other))
    assert torch.equal(images, same) and not torch.equal(images, others)


def test_cifar10_is_read_from_its_root_and_verified_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Mock(return_value=NumberedDataModule().load())
    monkeypatch.setattr(cifar10, "load_once", load)
    CIFAR10DataModule("somewhere", batch_size=3).setup()
    CIFAR10DataModule(verify=False, download=False).setup()
    assert load.call_args_list == [call("somewhere", True), call(None, False)]


class Recorder(L.LightningModule):
    """A linear classifier that records the numbers of the images of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 10)
        self.trained: dict[int, list[int]] = defaultdict(list)
        self.validated: dict[int, list[int]] = defaultdict(list)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        self.trained[self.current_epoch] += numbers(images)
        return F.cross_entropy(self.linear(images.mean((2, 3)) / 255), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self.validated[self.current_epoch] += numbers(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_trainer_visits_every_image_once_per_epoch_in_a_new_order() -> None:
    data, module = NumberedDataModule(batch_size=50, seed=3), Recorder()
    fit(module, data=data, max_epochs=2, enable_checkpointing=False)
    assert module.trainer.global_step == 2 * data.steps_per_epoch
    loader, held_out = NumberedDataModule(batch_size=50, seed=3).train_dataloader(), content(data.val_dataloader())
    for epoch in range(2):
        loader.set_epoch(epoch)
        assert module.trained[epoch] == content(loader)
        assert sorted(module.trained[epoch] + held_out) == list(range(NUM_TRAIN))
        assert module.validated[epoch] == held_out
    assert module.trained[0] != module.trained[1]


def test_processes_share_each_batch_and_none_may_be_left_without_images() -> None:
    data = NumberedDataModule(batch_size=60, val_fraction=0.0)  # the last batch holds 20 images
    device = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(strategy=device, global_rank=1, world_size=2)
    assert [len(labels) for _, labels in data.train_dataloader()] == [30, 30, 30, 10]
    data.trainer.world_size = 21
    with pytest.raises(ValueError, match=r"batch_size=60 .*\b20\b.*\b21\b"):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("root", "download", "fetches"),
    [(None, None, True), (None, False, False), ("named", None, False), ("named", True, True), ("named", False, False)],
)
def test_missing_files_are_downloaded_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str | None, download: bool | None, fetches: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetch = Mock()
    monkeypatch.setattr("cifar_lab.data.datamodule.fetch", fetch)
    folder = tmp_path / (root or "cifar_lab")
    data = CIFAR10DataModule(None if root is None else folder, download=download, sources=("http://x",))
    with pytest.raises(DataError, match=re.escape(str(folder))):  # because nothing was fetched
        data.setup()
    assert fetch.call_args_list == [call(CIFAR10, folder, ("http://x",))] * fetches
    folder.mkdir()
    for name in (name for names in FILES.values() for name in names):
        (folder / name).touch()
    with pytest.raises(DataError, match=re.escape(str(folder / "data_batch_1"))):  # because the file is empty
        data.setup()
    assert fetch.call_count == fetches


class ArraysDataModule(InMemoryDataModule):
    """A user's data set that returns numpy arrays, with labels of any integer type."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self.arrays = images, labels

    def load(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.arrays, self.arrays]


IMAGES = np.zeros((30, 32, 32, 3), np.uint8)


def test_a_subclass_may_return_arrays_and_takes_its_classes_from_them_or_names_them() -> None:
    data = ArraysDataModule(IMAGES, np.arange(30, dtype=np.uint8) % 3)
    images, labels = next(iter(data.train_dataloader()))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert data.classes == ["0", "1", "2"]
    named = ArraysDataModule(IMAGES, np.arange(30) % 3)
    named.classes = ("cat", "dog")
    with pytest.raises(DataError, match=r"\b0\b.*\b2\b.*\b0\b.*\b1\b"):
        named.setup()


@pytest.mark.parametrize(
    ("images", "labels", "facts"),
    [
        (IMAGES / 255, np.zeros(30, int), r"float64 \(30, 32, 32, 3\)"),
        (IMAGES.transpose(0, 3, 1, 2), np.zeros(30, int), r"uint8 \(30, 3, 32, 32\)"),
        (IMAGES, np.zeros(29, int), r"\b30\b.* int64 \(29,\)"),
        (IMAGES, np.zeros(30), r"float64 \(30,\)"),
        (IMAGES, np.arange(30) - 1, r"-1\b.*\b28\b"),
    ],
)
def test_arrays_of_a_wrong_type_are_refused(images: np.ndarray, labels: np.ndarray, facts: str) -> None:
    with pytest.raises(DataError, match=facts):
        ArraysDataModule(images, labels).setup()
