"""Small archives in the layouts of published data sets."""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from scipy.io import savemat

FINE = [f"fine{number}" for number in range(100)]
COARSE = [f"coarse{number}" for number in range(20)]


class Python2Pickler(pickle._Pickler):
    """Pickles str and bytes as Python 2 pickled its strings."""

    def save_string(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<I", len(content)) + content)

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def python2_file(value: Any) -> bytes:
    """Return a pickle in the format of Python 2."""
    Python2Pickler(file := io.BytesIO(), protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")  # the module's name before numpy 2


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Return random bytes `(count, *shape)`."""
    return np.random.default_rng(seed).integers(256, size=(count, *(shape or (32, 32, 3))), dtype=np.uint8)


def cifar100(root: Path, num_train: int = 400, num_test: int = 200) -> dict[str, Any]:
    """Write `cifar-100-python`, and return the content of its files by name."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    content: dict[str, Any] = {"meta": {"fine_label_names": FINE, "coarse_label_names": COARSE}}
    for seed, (name, count) in enumerate((("train", num_train), ("test", num_test))):
        fine = [number % 100 for number in range(count)]
        coarse = [label // 5 for label in fine]
        content[name] = {"data": pixels(count, 3072, seed=seed), "fine_labels": fine, "coarse_labels": coarse}
    for name, values in content.items():
        (folder / name).write_bytes(python2_file(values))
    return content


def svhn(folder: Path, count: int = 40) -> dict[str, np.ndarray]:
    """Write SVHN's two files, and return the images `(count, 32, 32, 3)` of each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed, split in enumerate(("train", "test")):
        found[split] = pixels(count, seed=seed)
        labels = np.arange(count)[:, None] % 10 + 1
        savemat(folder / f"{split}_32x32.mat", {"X": found[split].transpose(1, 2, 3, 0), "y": labels.astype(np.uint8)})
    return found


def fashion_mnist(folder: Path, count: int = 40, *, packed: bool = False) -> dict[str, np.ndarray]:
    """Write Fashion-MNIST's four files, packed or not; return the images `(count, 28, 28)` of `train` and `t10k`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed, split in enumerate(("train", "t10k")):
        found[split] = pixels(count, 28, 28, seed=seed)
        files = {
            f"{split}-images-idx3-ubyte": struct.pack(">4i", 2051, count, 28, 28) + found[split].tobytes(),
            f"{split}-labels-idx1-ubyte": struct.pack(">2i", 2049, count)
            + bytes(number % 10 for number in range(count)),
        }
        for name, content in files.items():
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return found


def cifar10_1(folder: Path, count: int = 20) -> np.ndarray:
    """Write CIFAR-10.1's two files, and return the images."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels(count)
    np.save(folder / "cifar10.1_v6_data.npy", images)
    np.save(folder / "cifar10.1_v6_labels.npy", np.arange(count, dtype=np.int32) % 10)
    return images


def tar(folder: Path, archive: Path) -> None:
    """Pack a folder under its own name."""
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)


def photos(folder: Path, classes: dict[str, int], size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    """Write a folder per class with the given number of single-coloured images."""
    random = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", size, tuple(random.integers(256, size=3).tolist())).save(buffer, "png")
            (folder / name / f"{number}.png").write_bytes(buffer.getvalue())
