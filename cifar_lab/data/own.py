"""Your own images: a folder per class, or arrays in an `npz` file. Does not import torch.

Images are read once and kept as arrays in the user's cache, keyed by the digest of their content.
"""

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from cifar_lab.data.files import DataError, default_root, resolve

if TYPE_CHECKING:
    import numpy as np

    from cifar_lab.data.photos import Resize

_SPLITS, _KINDS = ("train", "test"), ("images", "labels")
_TEST_FOLDERS = ("test", "val")
_NAMES = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))  # array names of a split: ours and MedMNIST's, then Keras's
_LAYOUT = "a folder per class in path/train and path/test, or in path itself"


# Images uint8 `(N, 32, 32, 3)` and labels `(N,)` of `train` and, if present, `test`.
Splits = dict[str, tuple["np.ndarray", "np.ndarray"]]


def digest(path: str | None) -> str | None:
    """Return the SHA-256 of a file's content, or of the names and contents of a folder's images; None if none exist.

    The digest is kept in the user's cache and recomputed when the size or modification time of a file has changed.
    """
    if not path:
        return None
    place = resolve(path).absolute()
    names = _image_names(place) if place.is_dir() else [""] if place.is_file() else []
    if not names:
        return None
    paths = [place / name if name else place for name in names]
    states = [path.stat() for path in paths]
    stamps = [(name, state.st_size, state.st_mtime_ns) for name, state in zip(names, states, strict=True)]
    stamp, kept = _sha256(repr(stamps)), default_root() / "digests" / _sha256(str(place))
    with suppress(OSError, ValueError):
        before, known = kept.read_text(encoding="utf-8").split()
        if before == stamp:
            return known
    from cifar_lab.terminal.progress import with_progress

    content = hashlib.sha256()
    for name, file in with_progress(list(zip(names, paths, strict=True)), f"digest of {place.name}"):
        content.update(f"{name}\0{_sha256(file.read_bytes())}\n".encode())
    with suppress(OSError), _replacing(kept) as part:
        part.write_text(f"{stamp} {content.hexdigest()}", encoding="utf-8")
    return content.hexdigest()


def classes(path: str | None) -> list[str]:
    """Return the class names: the sorted folder names, the array `classes`, or the labels from 0.

    Raises:
        DataError: `path` is empty or does not exist, or there are fewer than two classes.
    """
    if not path:
        raise DataError(f"data.path is not set; name a folder, {_LAYOUT}, or an npz file")
    place = resolve(path)
    if place.is_dir():
        classes = _folder_classes(place)
    elif place.is_file():
        classes = _file_classes(place)
    else:
        raise DataError(f"data.path={path} does not exist; name a folder, {_LAYOUT}, or an npz file")
    if len(classes) < 2:
        raise DataError(f"data.path={path} has images of {len(classes)} classes, fewer than two: {_LAYOUT}")
    return classes


def read(path: str, content: str, resize: "Resize") -> Splits:
    """Read all images at 32x32, from the cache if they have been read before.

    Args:
        path: Folder or file.
        content: Digest of the content.
        resize: See `photos.read_image`.

    Raises:
        DataError: An image or an array cannot be used.
    """
    import numpy as np

    kept = default_root() / "arrays" / f"{content}-{resize}.npz"
    with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(kept, allow_pickle=False) as file:
        return {split: (file[f"{split}_images"], file[f"{split}_labels"]) for split in file["splits"].tolist()}
    place = resolve(path)
    splits = _read_folder(place, classes(path), resize) if place.is_dir() else _read_file(place, resize)
    with suppress(OSError), _replacing(kept) as staged:
        arrays = {f"{split}_images": images for split, (images, _) in splits.items()}
        arrays |= {f"{split}_labels": labels for split, (_, labels) in splits.items()}
        np.savez(staged, **arrays, splits=list(splits))  # type: ignore[arg-type]
    return splits


def _image_names(folder: Path) -> list[str]:
    """Return the image files below a folder, relative to it and sorted; links to folders are not followed."""
    from cifar_lab.data.photos import ENDINGS

    walked = ((place, name) for place, _, names in os.walk(folder) for name in names if not name.startswith("."))
    files = (Path(place, name) for place, name in walked if os.path.splitext(name)[1].lower() in ENDINGS)
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _split_folders(root: Path) -> dict[str, Path]:
    if not (root / "train").is_dir():
        return {"train": root}
    tests = [root / name for name in _TEST_FOLDERS if (root / name).is_dir()]
    return {"train": root / "train", **({"test": tests[0]} if tests else {})}


def _folder_classes(root: Path) -> list[str]:
    folder = _split_folders(root)["train"]
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _read_folder(root: Path, names: list[str], resize: "Resize") -> Splits:
    import numpy as np

    from cifar_lab.data.photos import ImageFileError, read_image
    from cifar_lab.terminal.progress import with_progress

    def image(path: Path) -> "np.ndarray":
        try:
            return read_image(path, resize)
        except ImageFileError as error:
            raise DataError(f"{path}: {error}; remove it, or save it again") from None

    splits = {}
    for split, folder in _split_folders(root).items():
        files = [Path(name) for name in _image_names(folder)]
        unknown = sorted({file.parts[0] for file in files if len(file.parts) == 1 or file.parts[0] not in names})
        if unknown or not files:
            what = f"{unknown[0]} is in no class of {', '.join(names[:5])}" if unknown else "it has no images"
            raise DataError(f"{folder}: {what}; {_LAYOUT}")
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            reading = [pool.submit(image, folder / file) for file in files]
            images = [each.result() for each in with_progress(reading, f"{split} images of {root.name}")]
        splits[split] = np.stack(images), np.array([names.index(file.parts[0]) for file in files])
    return splits


def _read_arrays(path: Path, kinds: Collection[str]) -> dict[str, "np.ndarray"]:
    """Read arrays of an npz file as `train_images`, `train_labels`, `test_images`, `test_labels` and `classes`.

    Args:
        path: The file.
        kinds: The kinds to read, from `images`, `labels` and `classes`.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            pair = next((pair for pair in _NAMES if all(name.format("train") in file for name in pair)), None)
            if pair is None:
                inside = ", ".join(file) or "nothing"
                raise DataError(f"{path} has {inside}; it needs train_images and train_labels, or x_train and y_train")
            names = dict(zip(_KINDS, pair, strict=True))
            wanted = {
                f"{split}_{kind}": names[kind].format(split) for split in _SPLITS for kind in names if kind in kinds
            }
            wanted |= {"classes": "classes"} if "classes" in kinds else {}
            return {ours: file[name] for ours, name in wanted.items() if name in file}
    except DataError:
        raise
    except Exception as error:  # damaged bytes can make the reader raise nearly anything
        raise DataError(f"{path} is not an npz file of arrays ({' '.join(str(error).split())[:200]})") from None


def _file_classes(path: Path) -> list[str]:
    arrays = _read_arrays(path, ("labels", "classes"))
    if "classes" in arrays:
        return [str(name) for name in arrays["classes"].ravel()]
    labels = [arrays[f"{split}_labels"] for split in _SPLITS if f"{split}_labels" in arrays]
    if not all(each.size and each.dtype.kind in "iu" for each in labels):
        raise DataError(f"{path}: labels must be non-negative integers, at least one")
    return [str(label) for label in range(1 + max(int(each.max()) for each in labels))]


def _read_file(path: Path, resize: "Resize") -> Splits:
    arrays, splits = _read_arrays(path, _KINDS), {}
    for split in _SPLITS:
        if f"{split}_images" in arrays:
            images = arrays[f"{split}_images"]
            labels = arrays.get(f"{split}_labels", images[:0])
            splits[split] = _in_colour(images, resize, f"{path}: {split}"), labels.reshape(len(labels))
    return splits


def _in_colour(images: "np.ndarray", resize: "Resize", what: str) -> "np.ndarray":
    """Convert uint8 images `(N, H, W)`, `(N, H, W, 1)` or `(N, H, W, 3)` to `(N, 32, 32, 3)`."""
    import numpy as np
    from PIL import Image

    from cifar_lab.data.photos import SIDE, resized
    from cifar_lab.terminal.progress import with_progress

    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        kind = f"{images.dtype} {shape}"
        raise DataError(f"{what} images must be uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), not {kind}")
    images = images.repeat(3, axis=3) if images.shape[3] == 1 else images
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    return np.stack([resized(Image.fromarray(image), resize) for image in with_progress(list(images), what)])


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as staging:
        staged = Path(staging) / path.name
        yield staged
        os.replace(staged, path)
