"""Base class of data modules that keep their images in memory."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from cifar_lab.data.division import divide
from cifar_lab.data.images import LabelledImages, channel_statistics
from cifar_lab.data.loader import Augmentation, BatchLoader, normalise
from cifar_lab.data.selection import Selection
from cifar_lab.machine.exit_codes import UsageError

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

# On a CPU, activations of small batches fit into memory that training has freed. For larger batches, the system
# allocates memory page by page at every layer, and evaluation takes up to 1.6 times as long.
_CPU_EVAL_BATCH_SIZE, _EVAL_BATCH_SIZE = 100, 500

Arrays = tuple[Tensor | np.ndarray, Tensor | np.ndarray]


class InMemoryDataModule(L.LightningDataModule):
    """Keeps images in memory on the training device, and splits and batches them; subclasses load them.

    Args:
        batch_size: Training images per batch, summed over all training processes.
        augment: Augments each training batch, called as `(images, generator)`; None for no augmentation.
        mean: Per channel, subtracted from images in [0, 1]. Default: the mean of the training images, to four digits.
        std: Per channel, the divisor. Default: the standard deviation of the training images, to four digits.
        val_fraction: Share of the training images held out, stratified, to choose the epoch. With 0 all images train,
            and the test set is also the validation set.
        train_size: Number of training images, stratified, after the split. Default: all.
        split_seed: Seed of the split, `train_size`, `imbalance` and `label_noise`.
        seed: Seed of the order of the training images and of their augmentation.
        drop_last: Drop the last training batch of an epoch if it is incomplete.
        skip_easy: Probability of skipping an image whose last loss was below the mean (InfoBatch, arXiv:2303.04947). An
            epoch still has the same number of images, see `selection.Selection`.
        imbalance: Share of its training images that the last class keeps; shares fall exponentially from the first
            class to the last, see `division.long_tailed`. 1 keeps all.
        label_noise: Share of the training images with a wrong label, see `division.mislabelled`.

    Raises:
        ValueError: `batch_size` is not positive, a share is outside [0, 1), or `imbalance` outside (0, 1].

    Attributes:
        classes: Class names, in the order of the labels. If a subclass sets none, the labels, once loaded.
        train_available: Number of training images after the split and `imbalance`, once loaded.
    """

    classes: Sequence[str] = ()

    def __init__(
        self,
        *,
        batch_size: int = 128,
        augment: Augmentation | None = None,
        mean: Sequence[float] | None = CIFAR10_MEAN,
        std: Sequence[float] | None = CIFAR10_STD,
        val_fraction: float = 0.1,
        train_size: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
        drop_last: bool = False,
        skip_easy: float = 0.0,
        imbalance: float = 1.0,
        label_noise: float = 0.0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size} must be at least 1")
        for name, share in (("val_fraction", val_fraction), ("skip_easy", skip_easy), ("label_noise", label_noise)):
            if not 0 <= share < 1:
                raise UsageError(f"{name}={share} is outside [0, 1)")
        if not 0 < imbalance <= 1:
            raise UsageError(f"imbalance={imbalance} is outside (0, 1]")
        self.batch_size = batch_size
        self.augment = augment
        self._mean, self._std = mean, std
        self.val_fraction = val_fraction
        self.train_size = train_size
        self.split_seed = split_seed
        self.seed = seed
        self.drop_last = drop_last
        self.skip_easy = skip_easy
        self.imbalance = imbalance
        self.label_noise = label_noise
        self.train_available = 0
        self._splits: dict[str, LabelledImages] = {}
        self._selection: Selection | None = None

    def load(self) -> Sequence[Arrays]:
        """Return training images with labels, and test images with labels, as numpy arrays or torch tensors.

        Images are uint8 `(N, 32, 32, 3)`; labels are integers `(N,)` from 0.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load and divide the images; later calls do nothing.

        Raises:
            DataError: Files are missing or damaged, images or labels have a wrong shape or dtype, a part would be
                empty, or `train_size` exceeds the number of images.
            ValueError: `drop_last` leaves no training batch.
        """
        if self._splits:
            return
        train, test = (LabelledImages.checked(*part, len(self.classes) or None) for part in self.load())
        if not self.classes:
            self.classes = [str(label) for label in range(1 + int(torch.cat([train.labels, test.labels]).max()))]
        division = divide(
            train,
            test,
            len(self.classes),
            val_fraction=self.val_fraction,
            train_size=self.train_size,
            split_seed=self.split_seed,
            imbalance=self.imbalance,
            label_noise=self.label_noise,
        )
        self.train_available, images = division.available, division.train.images
        if self.drop_last and len(images) < self.batch_size:
            words = f"{len(images):,} training images"
            raise UsageError(f"data.drop_last=true leaves no batch of batch_size={self.batch_size}: there are {words}")
        if self._mean is None or self._std is None:
            mean, std = channel_statistics(images)
            self._mean, self._std = self._mean or mean, self._std or std
        self._splits = {"train": division.train, "val": division.val, "test": division.test}

    @property
    def mean(self) -> Sequence[float]:
        """The mean per channel, subtracted from images in [0, 1]."""
        if self._mean is None:
            self.setup()
        assert self._mean is not None
        return self._mean

    @property
    def std(self) -> Sequence[float]:
        """The divisor per channel, for images in [0, 1]."""
        if self._std is None:
            self.setup()
        assert self._std is not None
        return self._std

    def size(self, split: str) -> int:
        """Return the number of images in `train`, `val` or `test`."""
        self.setup()
        return len(self._splits[split].labels)

    def training_images(self, count: int) -> Tensor:
        """Return at most `count` training images, the first ones, normalised, float32 `(N, 3, 32, 32)`."""
        self.setup()
        return normalise(self._splits["train"].images[:count], *map(torch.tensor, (self.mean, self.std)))

    @property
    def selection(self) -> Selection | None:
        """The selection of each epoch's images; None if an epoch visits all images."""
        if self._selection is None and self.skip_easy:
            self._selection = Selection(self.size("train"), self.skip_easy)
        return self._selection

    def state_dict(self) -> dict[str, Any]:
        """Return the selection's losses; Lightning saves a loader's own state only within an epoch."""
        return {} if self.selection is None else self.selection.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the selection's losses."""
        if self.selection is not None:
            self.selection.load_state_dict(state_dict)

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        whole, rest = divmod(self.size("train"), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def train_dataloader(self) -> BatchLoader:
        """Return a loader of shuffled, augmented training batches.

        Raises:
            ValueError: The last batch has fewer images than there are processes.
        """
        options: dict[str, Any] = {"augment": self.augment, "seed": self.seed, "drop_last": self.drop_last}
        loader = self._loader("train", self.batch_size, shuffle=True, selection=self.selection, **options)
        last, processes = len(loader.data.labels) % self.batch_size or self.batch_size, loader.part[1]
        if last < processes and not self.drop_last:
            raise UsageError(
                f"batch_size={self.batch_size} leaves a last batch of {last} for {processes} processes; "
                "set another batch_size, or data.drop_last=true"
            )
        return loader

    def val_dataloader(self) -> BatchLoader:
        """Return a loader of validation batches, in a fixed order and not augmented."""
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return a loader of test batches, in a fixed order and not augmented."""
        return self._loader("test")

    def _loader(self, split: str, batch_size: int | None = None, **options: Any) -> BatchLoader:
        self.setup()
        device, part = torch.device("cpu"), (0, 1)
        if self.trainer is not None:
            device, part = self.trainer.strategy.root_device, (self.trainer.global_rank, self.trainer.world_size)
        if batch_size is None:
            batch_size = _CPU_EVAL_BATCH_SIZE if device.type == "cpu" else _EVAL_BATCH_SIZE
        data = LabelledImages(*(tensor.to(device) for tensor in self._splits[split]))
        return BatchLoader(data, batch_size, self.mean, self.std, part=part, num_classes=len(self.classes), **options)
