"""Images from bytes to batches."""

from cifar_lab.data.datamodule import CIFAR10DataModule, InMemoryDataModule, SyntheticDataModule
from cifar_lab.data.images import DataError, LabelledImages

__all__ = ["CIFAR10DataModule", "DataError", "InMemoryDataModule", "LabelledImages", "SyntheticDataModule"]
