"""Published data sets are read as torchvision reads them, and fetched and verified by one table."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from cifar_lab.data import archives, cifar10
from cifar_lab.data.archives import CIFAR10_1, CIFAR100, FASHION_MNIST, SVHN, Archive, Dataset
from cifar_lab.data.datamodule import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    FashionMNISTDataModule,
    InMemoryDataModule,
    SVHNDataModule,
)
from cifar_lab.data.download import fetch
from cifar_lab.data.files import DataError, locate
from tests.conftest import CHECKOUT, holds
from tests.data import layouts


def images(data: InMemoryDataModule, split: str = "test") -> tuple[torch.Tensor, torch.Tensor]:
    data.setup()
    return tuple(data._splits[split])  # type: ignore[return-value]


def test_the_checksums_equal_torchvisions_and_are_in_the_reference() -> None:
    sets = torchvision.datasets
    assert CIFAR100.archives == (Archive(sets.CIFAR100.filename, f"md5:{sets.CIFAR100.tgz_md5}"),)
    meta = sets.CIFAR100.meta
    lists = [*sets.CIFAR100.train_list, *sets.CIFAR100.test_list, (meta["filename"], meta["md5"])]
    assert dict(lists) == CIFAR100.md5
    svhn = [sets.SVHN.split_list[split] for split in ("train", "test")]
    assert [(f"{SVHN.source}{one.name}", one.name, one.checksum[4:]) for one in SVHN.archives] == list(map(tuple, svhn))
    fashion = [(one.name, one.checksum[4:]) for one in FASHION_MNIST.archives]
    assert fashion == sets.FashionMNIST.resources and FASHION_MNIST.source in sets.FashionMNIST.mirrors
    assert archives.table() in (CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("labels", "classes"), [("fine", layouts.FINE), ("coarse", layouts.COARSE)])
def test_cifar100_has_fine_or_coarse_classes_with_their_names(tmp_path: Path, labels: str, classes: list[str]) -> None:
    content = layouts.cifar100(tmp_path)
    data = CIFAR100DataModule(tmp_path, labels=labels, verify=False, mean=None, std=None)
    read, of_images = images(data)
    planes = content["test"]["data"].reshape(-1, 3, 32, 32)
    assert np.array_equal(read.numpy(), planes.transpose(0, 2, 3, 1))
    assert of_images.tolist() == content["test"][f"{labels}_labels"] and list(data.classes) == classes
    train = data._splits["train"].images.double() / 255
    np.testing.assert_allclose(data.mean, train.mean((0, 1, 2)), atol=5e-5)
    np.testing.assert_allclose(data.std, train.std((0, 1, 2), correction=0), atol=5e-5)


@pytest.mark.parametrize("name", ["train", "meta"])
def test_a_damaged_file_of_cifar100_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    layouts.cifar100(tmp_path, 20, 20)
    folder = tmp_path / "cifar-100-python"
    md5 = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in CIFAR100.files}
    monkeypatch.setattr(CIFAR100DataModule, "dataset", CIFAR100._replace(md5=md5))
    assert CIFAR100DataModule(folder).size("train") == 18, "val_fraction is 0.1"
    (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    monkeypatch.setattr("cifar_lab.data.published.unpickled", pytest.fail)
    with pytest.raises(DataError) as error:
        CIFAR100DataModule(folder).setup()
    holds(str(error.value), folder / name, md5[name], "data.verify=false")


def test_svhn_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.svhn(tmp_path)
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    theirs = torchvision.datasets.SVHN(tmp_path, "test")
    read, labels = images(SVHNDataModule(tmp_path, verify=False))
    assert np.array_equal(read.numpy(), theirs.data.transpose(0, 2, 3, 1)) and labels.tolist() == theirs.labels.tolist()
    with pytest.raises(DataError, match=r"train_32x32\.mat .*data\.verify=false"):
        SVHNDataModule(tmp_path).setup()
    (tmp_path / "train_32x32.mat").write_bytes(b"no such file")
    with pytest.raises(DataError, match=r"train_32x32\.mat is not an SVHN file"):
        SVHNDataModule(tmp_path, verify=False).setup()


def test_fashion_mnist_is_read_as_torchvision_reads_it_padded_and_in_three_channels(tmp_path: Path) -> None:
    layouts.fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    theirs = torchvision.datasets.FashionMNIST(tmp_path, train=False)
    data = FashionMNISTDataModule(tmp_path)
    read, labels = images(data)
    assert all(torch.equal(read[:, 2:30, 2:30, channel], theirs.data) for channel in range(3))
    assert int(read.sum()) == 3 * int(theirs.data.sum()), "all else is black"
    assert labels.tolist() == theirs.targets.tolist() and list(data.classes) == theirs.classes
    (tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    with pytest.raises(DataError, match="t10k"):
        FashionMNISTDataModule(tmp_path).setup()


def test_cifar10_1_replaces_only_the_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [cifar10.LabelledImages.checked(layouts.pixels(40, seed=seed), np.arange(40) % 10) for seed in (1, 2)]
    monkeypatch.setattr(cifar10, "load_once", lambda root, verify: own)
    expected = layouts.cifar10_1(tmp_path / "cifar-10.1")
    data = CIFAR10DataModule(tmp_path, test_set="cifar10_1", verify=False, val_fraction=0)
    assert np.array_equal(images(data)[0].numpy(), expected) and torch.equal(images(data, "train")[0], own[0].images)
    with pytest.raises(DataError, match=r"cifar10\.1_v6_data\.npy .*GIT"):
        CIFAR10DataModule(tmp_path, test_set="cifar10_1").setup()
    with pytest.raises(DataError, match=r"no CIFAR-10\.1 in .*data\.download=true"):
        CIFAR10DataModule(tmp_path / "nowhere", test_set="cifar10_1").setup()


def with_checksums(dataset: Dataset, folder: Path) -> Dataset:
    """Return the data set with the checksums of the archives in a folder."""

    def archive(one: Archive) -> Archive:
        content, algorithm = (folder / one.name).read_bytes(), one.checksum.partition(":")[0]
        blob = b"blob %d\0" % len(content) if algorithm == "git" else b""
        digits = hashlib.new("sha1" if algorithm == "git" else algorithm, blob + content).hexdigest()
        return one._replace(checksum=f"{algorithm}:{digits}")

    return dataset._replace(archives=tuple(map(archive, dataset.archives)))


@pytest.mark.parametrize("dataset", [CIFAR100, CIFAR10_1, SVHN, FASHION_MNIST], ids=lambda dataset: dataset.title)
def test_archives_of_every_kind_are_unpacked_into_files_that_are_found(tmp_path: Path, dataset: Dataset) -> None:
    served = tmp_path / "served"
    served.mkdir()
    if dataset is CIFAR100:
        layouts.cifar100(tmp_path / "packed", 20, 20)
        layouts.tar(tmp_path / "packed" / "cifar-100-python", served / "cifar-100-python.tar.gz")
    makers: dict[str, Any] = {"CIFAR-10.1": layouts.cifar10_1, "SVHN": layouts.svhn}
    makers.get(dataset.title, lambda folder: None)(served)
    if dataset is FASHION_MNIST:
        layouts.fashion_mnist(served, packed=True)
    root, source = tmp_path / "root", f"{served.as_uri()}/"
    with pytest.raises(DataError, match=f"{dataset.title}.*{dataset.archives[0].name} sent"):
        fetch(dataset, root, [source])
    assert not list(root.iterdir())
    fetch(with_checksums(dataset, served), root, [source])
    assert locate(dataset, root) == root / dataset.folder
    assert sorted(file.name for file in (root / dataset.folder).iterdir()) == sorted(dataset.files)
