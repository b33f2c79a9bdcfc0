"""Looks up the files and the number of classes of a data option, without importing torch."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cifar_lab.data import files, own
from cifar_lab.data.archives import CIFAR10, CIFAR10_1, DATASETS, Dataset
from cifar_lab.data.files import DataError

_OWN = "OwnDataModule"
_CIFAR100_CLASSES = {"fine": 100, "coarse": 20}


def check(option: Mapping[str, Any]) -> None:
    """Raise `DataError` if files are missing and may not be downloaded."""
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
    """Return an option's number of classes; 10 for an external data module, which the model option may override."""
    if _class_of(option) == "CIFAR100DataModule":
        return _CIFAR100_CLASSES.get(option["labels"], 100)
    if _class_of(option) == _OWN:
        with suppress(DataError):  # `check` reports it
            return len(own.classes(option.get("path")))
    return 10


def dataset_of(option: Mapping[str, Any]) -> Dataset | None:
    """Return an option's published data set, or None."""
    return DATASETS.get(_class_of(option))


def is_there(option: Mapping[str, Any]) -> bool:
    """Return whether an option's files are on this machine; True for data without files."""
    if _class_of(option) == _OWN:
        return files.resolve(option["path"]).exists()
    dataset = dataset_of(option)
    return dataset is None or files.is_there(option["root"], dataset)


def _class_of(option: Mapping[str, Any]) -> str:
    """Return the class name of an option's data module; empty for an external one."""
    target = str(option.get("_target_"))
    return target.rpartition(".")[2] if target.startswith("cifar_lab.") else ""
