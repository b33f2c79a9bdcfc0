"""Data modules for published, generated and your own data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cifar_lab.data import cifar10, files, own, published, synthetic
from cifar_lab.data.archives import CIFAR10, CIFAR10_1, CIFAR100, FASHION_MNIST, SVHN, Dataset
from cifar_lab.data.download import fetch
from cifar_lab.data.files import DataError
from cifar_lab.data.images import LabelledImages, keyed_generator, stratified_split
from cifar_lab.data.in_memory import CIFAR10_MEAN, CIFAR10_STD, Arrays, InMemoryDataModule
from cifar_lab.data.photos import Resize

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "FashionMNISTDataModule",
    "InMemoryDataModule",
    "OwnDataModule",
    "PublishedDataModule",
    "SVHNDataModule",
    "SyntheticDataModule",
]
T = TypeVar("T")
# First of a generator key's three numbers, for the choice of test images from your own data.
_TESTED = 2


class PublishedDataModule(InMemoryDataModule):
    """A published data set, downloaded if it is missing; subclasses read its files.

    Args:
        root: Folder of the published files; None for the user's cache.
        verify: Compare images or files with their published digests; sizes and labels are always checked.
        download: Whether to download missing files; None downloads them into the user's cache, but not into a given
            `root`.
        sources: URLs of the archives, see `download.fetch`; None for the published one.
        options: Arguments of `InMemoryDataModule`.

    Attributes:
        dataset: Archives and files of the data set.
    """

    dataset: Dataset

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        verify: bool = True,
        download: bool | None = None,
        sources: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root = root
        self.verify = verify
        self.download = download
        self.sources = sources

    def load(self) -> Sequence[Arrays]:
        """Read training and test images, after downloading them if they are missing and this is allowed.

        Raises:
            DataError: Files are missing or damaged, or cannot be downloaded.
        """
        self.fetch_missing(self.dataset, self.sources)
        return self.read()

    def fetch_missing(self, dataset: Dataset, sources: Sequence[str] | None = None) -> None:
        """Download a data set if it is missing and this is allowed."""
        if files.may_download(self.root, self.download) and not files.is_there(self.root, dataset):
            fetch(dataset, files.resolve(self.root), sources)

    def read(self) -> Sequence[Arrays]:
        """Read training and test images from files that exist."""
        raise NotImplementedError

    def read_once(self, read: Callable[..., T], *arguments: Any) -> T:
        """Verify the files and return the result of `read`, which `files.once` caches for all data modules."""
        folder = files.locate(self.dataset, self.root).resolve()
        paths = [folder / name for name in self.dataset.files]
        md5 = tuple(self.dataset.md5.items()) if self.verify else ()
        return files.once(_read_verified, paths, read, md5, folder, *arguments)


def _read_verified(read: Callable[..., T], md5: Sequence[tuple[str, str]], folder: Path, *arguments: Any) -> T:
    for name, digits in md5:
        files.check_checksum(folder / name, f"md5:{digits}")
    return read(folder, *arguments)


class CIFAR10DataModule(PublishedDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images of ten classes, see `cifar_lab.data.cifar10.load`.

    Args:
        root: See `PublishedDataModule`.
        test_set: `cifar10`, or `cifar10_1` for the 2,000 images of CIFAR-10.1 (arXiv:1806.00451).
        options: Arguments of `PublishedDataModule`.
    """

    classes = cifar10.CLASSES
    dataset = CIFAR10

    def __init__(self, root: str | Path | None = None, *, test_set: str = "cifar10", **options: Any) -> None:
        super().__init__(root, **options)
        self.test_set = test_set

    def read(self) -> tuple[LabelledImages, LabelledImages]:
        """Read training and test images, once for all data modules."""
        train, test = cifar10.load_once(self.root, self.verify)
        if self.test_set == "cifar10_1":
            self.fetch_missing(CIFAR10_1)
            test = cifar10.load_10_1(self.root, self.verify)
        return train, test


class CIFAR100DataModule(PublishedDataModule):
    """CIFAR-100: 50,000 training and 10,000 test images of 100 classes, or of their 20 superclasses.

    Args:
        root: See `PublishedDataModule`; the files have the Python layout.
        labels: `fine` or `coarse`.
        options: Arguments of `PublishedDataModule`.
    """

    dataset = CIFAR100

    def __init__(self, root: str | Path | None = None, *, labels: str = "fine", **options: Any) -> None:
        super().__init__(root, **options)
        self.labels = labels

    def read(self) -> Sequence[Arrays]:
        """Read training and test images, and set the class names."""
        self.classes, *splits = self.read_once(published.cifar100, self.labels)
        return splits


class SVHNDataModule(PublishedDataModule):
    """SVHN (Netzer et al. 2011), cropped digits: 73,257 training and 26,032 test images of ten classes."""

    classes = tuple(map(str, range(10)))
    dataset = SVHN

    def read(self) -> Sequence[Arrays]:
        """Read training and test images."""
        return self.read_once(published.svhn)


class FashionMNISTDataModule(PublishedDataModule):
    """Fashion-MNIST (arXiv:1708.07747): 60,000 training and 10,000 test images of ten classes.

    Departure: the grey level fills all three channels, and two black pixels on each side pad 28x28 images to 32x32.
    """

    classes = published.FASHION_MNIST_CLASSES
    dataset = FASHION_MNIST

    def read(self) -> Sequence[Arrays]:
        """Read training and test images."""
        return self.read_once(published.fashion_mnist)


class SyntheticDataModule(InMemoryDataModule):
    """Generated images of ten classes in the shape of CIFAR-10, see `cifar_lab.data.synthetic`.

    Args:
        num_train: Number of training images, including those held out to choose the epoch.
        num_test: Number of test images.
        data_seed: Seed of the images.
        options: Arguments of `InMemoryDataModule`.
    """

    classes = synthetic.CLASSES

    def __init__(self, num_train: int = 10_000, num_test: int = 2_000, *, data_seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.num_train = num_train
        self.num_test = num_test
        self.data_seed = data_seed

    def load(self) -> tuple[LabelledImages, LabelledImages]:
        """Generate training and test images; raise `ValueError` if either number is not positive."""
        return synthetic.generate(self.num_train, self.num_test, self.data_seed)


class OwnDataModule(InMemoryDataModule):
    """Images of your own: a folder per class, or an `npz` file, see `cifar_lab.data.own`.

    Args:
        path: The folder or file.
        resize: How to resize images to 32x32: `crop` takes the largest centred square, `squash` the whole image.
        test_fraction: Share of the images held out as the test set, stratified, if the data has no test set.
        digest: Expected digest of the content; None accepts any.
        options: Arguments of `InMemoryDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        resize: Resize = "crop",
        test_fraction: float = 0.2,
        digest: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path = path
        self.resize = resize
        self.test_fraction = test_fraction
        self.digest = digest

    def load(self) -> Sequence[Arrays]:
        """Read training and test images, and set the class names.

        Raises:
            DataError: Images are missing or damaged, or the content does not have the expected digest.
        """
        self.classes = own.classes(self.path)
        actual = own.digest(self.path)
        if self.path is None or actual is None:
            raise DataError(f"data.path={self.path} has no images")
        if self.digest not in (None, actual):
            raise DataError(f"data.path={self.path}: its content has changed; it was {self.digest}, and is {actual}")
        splits = own.read(self.path, actual, self.resize)
        if "test" in splits:
            return splits["train"], splits["test"]
        every = LabelledImages.checked(*splits["train"], len(self.classes))
        count = round(self.test_fraction * len(every.labels))
        tested, rest = stratified_split(every.labels, count, keyed_generator(_TESTED, 0, 0))
        return every.take(rest), every.take(tested)
