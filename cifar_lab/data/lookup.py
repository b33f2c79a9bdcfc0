"""Facts about an option of `data` that need no torch: whether its files exist, and its number of classes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cifar_lab.data import files, own
from cifar_lab.data.archives import CIFAR10, CIFAR10_1, DATASETS, Dataset
from cifar_lab.data.files import DataError

_OWN = "OwnDataModule"
_CIFAR100_CLASSES = {"fine": 100, "coarse": 20}


def check(option: Mapping[str, Any]) -> None:
    """Raise `DataError` for data whose files are missing, and may not be fetched."""
    if _class_of(option) == _OWN:
        own.classes(option.get("path"))
        if own.digest(option["path"]) is None:
            raise DataError(f"data.path={option['path']} has no images")
    dataset = dataset_of(option)
    if dataset is None:
        return
    root = option["root"]
    if files.may_download(root, option["download"]):
        files.resolve(root)
        return
    if dataset is CIFAR10:
        files.find(root)
    else:
        files.locate(dataset, root)
    if option.get("test_set") == "cifar10_1":
        files.locate(CIFAR10_1, root)


def num_classes(option: Mapping[str, Any]) -> int:
    """Number of classes of an option; of a class from outside 10, which the option of the model says otherwise."""
    if _class_of(option) == "CIFAR100DataModule":
        return _CIFAR100_CLASSES.get(option["labels"], 100)
    if _class_of(option) == _OWN:
        with suppress(DataError):  # which the check names
            return len(own.classes(option.get("path")))
    return 10


def dataset_of(option: Mapping[str, Any]) -> Dataset | None:
    """The published data set of an option; None if it is none."""
    return DATASETS.get(_class_of(option))


def is_there(option: Mapping[str, Any]) -> bool:
    """Whether the files of an option are on this machine; of data that has none, true."""
    if _class_of(option) == _OWN:
        return files.resolve(option["path"]).exists()
    dataset = dataset_of(option)
    return dataset is None or files.is_there(option["root"], dataset)


def _class_of(option: Mapping[str, Any]) -> str:
    """The name of its data module; empty of one from outside."""
    target = str(option.get("_target_"))
    return target.rpartition(".")[2] if target.startswith("cifar_lab.") else ""
