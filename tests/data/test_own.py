"""A user's own images are found, resized, cached, and identified by their content."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_lab.config import resolved
from cifar_lab.config.command_line import parsed
from cifar_lab.config.preflight import plan_of
from cifar_lab.data import own
from cifar_lab.data.datamodule import OwnDataModule
from cifar_lab.data.files import DataError
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.fingerprints import fingerprint
from tests.conftest import Compose
from tests.data import layouts


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cifar_lab"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of three classes for training and two of these classes for tests."""
    layouts.photos(tmp_path / "mine" / "train", {"dog": 6, "ant": 4, "cat": 2})
    layouts.photos(tmp_path / "mine" / "test", {"cat": 2, "ant": 1}, size=(32, 32), seed=1)
    return tmp_path / "mine"


def refusal(path: Path | str | None, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        OwnDataModule(None if path is None else str(path), val_fraction=0, **options).setup()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_per_class_becomes_images_with_the_folders_name(folder: Path) -> None:
    data = OwnDataModule(str(folder), val_fraction=0, mean=None, std=None)
    train, test = data.train_dataloader().data, data.test_dataloader().data
    assert list(data.classes) == ["ant", "cat", "dog"]
    assert train.labels.tolist() == [0] * 4 + [1] * 2 + [2] * 6 and test.labels.tolist() == [0, 1, 1]
    assert train.images.shape == (12, 32, 32, 3)
    expected = np.asarray(Image.open(folder / "test" / "cat" / "1.png"))
    assert np.array_equal(test.images[2].numpy(), expected), "a 32x32 image keeps its pixels"


def test_without_a_test_folder_a_stratified_share_independent_of_the_split_seed_is_the_test_set(tmp_path: Path) -> None:
    layouts.photos(tmp_path / "mine", {"a": 20, "b": 10})
    sets = [OwnDataModule(str(tmp_path / "mine"), test_fraction=0.2, split_seed=seed) for seed in (0, 1)]
    tests = [data.test_dataloader().data for data in sets]
    assert tests[0].labels.bincount().tolist() == [4, 2] and torch.equal(tests[0].images, tests[1].images)
    assert [sets[0].size(split) for split in ("train", "val")] == [22, 2]


def test_images_are_decoded_once_and_again_if_the_cache_is_damaged(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = OwnDataModule(str(folder)).test_dataloader().data.images
    (kept,) = (cache / "arrays").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("cifar_lab.data.own._read_folder", pytest.fail)
        assert torch.equal(OwnDataModule(str(folder)).test_dataloader().data.images, first)
    kept.write_bytes(b"no zip")
    assert torch.equal(OwnDataModule(str(folder)).test_dataloader().data.images, first)


def test_the_digest_covers_names_and_contents_but_not_place_or_time(folder: Path, tmp_path: Path) -> None:
    first = own.digest(str(folder))
    os.utime(folder / "train" / "dog" / "0.png", (0, 0))
    folder.rename(tmp_path / "moved")
    assert own.digest(str(folder)) is None and own.digest(str(tmp_path / "moved")) == first is not None
    (tmp_path / "moved" / "notes.txt").touch()
    assert own.digest(str(tmp_path / "moved")) == first, "no image"
    photo = tmp_path / "moved" / "train" / "dog" / "0.png"
    content = bytearray(photo.read_bytes())
    content[-1] ^= 1
    photo.write_bytes(content)
    assert own.digest(str(tmp_path / "moved")) != first
    assert "content has changed" in refusal(tmp_path / "moved", digest=first)


def test_content_is_read_only_once_for_its_digest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = own.digest(str(folder))
    monkeypatch.setattr(Path, "read_bytes", pytest.fail)
    assert own.digest(str(folder)) == first


@pytest.mark.parametrize("names", ["{split}_images {split}_labels", "x_{split} y_{split}"])
def test_an_npz_file_of_either_naming_is_read(tmp_path: Path, names: str) -> None:
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        images, labels = names.format(split=split).split()
        arrays |= {images: layouts.pixels(count), labels: np.arange(count)[:, None] % 4}
    np.savez(tmp_path / "mine.npz", **arrays, classes=np.array(["a", "b", "c", "d"]))  # type: ignore[arg-type]
    data = OwnDataModule(str(tmp_path / "mine.npz"), val_fraction=0)
    train = data.train_dataloader().data
    assert np.array_equal(train.images.numpy(), layouts.pixels(40)) and train.labels.tolist() == [0, 1, 2, 3] * 10
    assert list(data.classes) == ["a", "b", "c", "d"] and data.size("test") == 20


def test_grey_arrays_of_a_different_size_are_resized_to_three_channels(tmp_path: Path) -> None:
    grey = np.full((30, 28, 28), 7, np.uint8)
    np.savez(tmp_path / "mine.npz", train_images=grey, train_labels=np.arange(30) % 3)
    data = OwnDataModule(str(tmp_path / "mine.npz"))
    assert [data.size(split) for split in ("train", "val", "test")] == [22, 2, 6]
    images = data.train_dataloader().data.images
    assert images.shape == (22, 32, 32, 3) and images.unique().tolist() == [7]


def test_a_path_without_images_in_classes_is_refused_in_one_line(tmp_path: Path, folder: Path) -> None:
    assert "data.path" in refusal(None)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "0 classes" in refusal(tmp_path / "empty")
    (tmp_path / "text.npz").write_bytes(b"no zip")
    assert "text.npz is not an npz file" in refusal(tmp_path / "text.npz")
    np.savez(tmp_path / "others.npz", a=np.zeros(3))
    assert "train_images" in refusal(tmp_path / "others.npz")
    np.savez(tmp_path / "floats.npz", train_images=np.zeros((4, 8, 8)), train_labels=np.arange(4))
    assert "float64 (4, 8, 8)" in refusal(tmp_path / "floats.npz")
    np.savez(tmp_path / "code.npz", train_images=np.array([{}]), train_labels=np.arange(4))
    assert "allow_pickle" in refusal(tmp_path / "code.npz")
    layouts.photos(folder / "test", {"bee": 1})
    assert "bee is in no class of ant, cat, dog" in refusal(folder)
    (folder / "test" / "bee" / "0.png").unlink()
    (folder / "train" / "dog" / "bad.png").write_bytes(b"no image")
    assert f"{folder}/train/dog/bad.png" in refusal(folder)


def test_a_run_is_identified_by_the_images_content_and_the_model_follows_their_classes(
    folder: Path, tmp_path: Path, composed: Compose
) -> None:
    config = resolved(composed("data=folder", f"data.path={folder}", "model=vgg_a"))
    assert config["model"]["num_classes"] == 3 and config["data"]["digest"] == own.digest(str(folder))
    first = fingerprint(config)
    folder.rename(tmp_path / "moved")
    moved = resolved(composed("data=folder", f"data.path={tmp_path / 'moved'}", "model=vgg_a"))
    assert fingerprint(moved) == first
    (tmp_path / "moved" / "train" / "ant" / "0.png").unlink()
    fewer = resolved(composed("data=folder", f"data.path={tmp_path / 'moved'}", "model=vgg_a", "epochs=50"))
    assert fingerprint(fewer) != first


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ("data=folder", "data.path"),
        ("data=npz data.path=nowhere.npz", "nowhere.npz does not exist"),
        ("data=cifar100 data.root=nowhere", "no CIFAR-100 in nowhere"),
        ("data=cifar10 data.label_noise=1", "data.label_noise=1"),
        ("data=cifar10 data.imbalance=0", "data.imbalance=0"),
        ("data=cifar100 data.labels=both", "fine, coarse"),
        ("data=cifar100 data.mean=[1,2]", "data.mean=[1, 2]"),
    ],
)
def test_unusable_images_are_refused_before_anything_heavy_is_imported(
    words: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        plan_of(parsed(words.split()))
    assert fact in str(error.value)
