"""Accuracy on CIFAR-10-C (arXiv:1903.12261): CIFAR-10's test images, corrupted at five severities."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.data.files import DataError, read_array, resolve

if TYPE_CHECKING:
    from cifar_lab.trained import Trained

SEVERITIES = 5
_EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")  # for validation; excluded from the benchmark's mean
_LABELS, _BATCH_SIZE = "labels.npy", 500


def files(folder: Path) -> list[Path]:
    """Return the sorted files of corruptions in a folder.

    Raises:
        DataError: There are none, or the labels are missing.
    """
    folder = resolve(folder)
    files = sorted(path for path in folder.glob("*.npy") if path.name != _LABELS)
    if not files or not (folder / _LABELS).is_file():
        raise DataError(
            f"{folder} is not CIFAR-10-C: name the folder of fog.npy, ..., {_LABELS}, unpacked from CIFAR-10-C.tar "
            "of https://zenodo.org/records/2535967"
        )
    return files


def measure(trained: "Trained", folder: Path, tta: str | None = None) -> list[dict[str, Any]]:
    """Evaluate a network on each corruption and severity; return a row each: `corruption`, `severity`, `images`, `acc`.

    Raises:
        DataError: A file does not hold `SEVERITIES` equal parts of images, sorted by severity, with their labels.
    """
    from cifar_lab.data.images import LabelledImages
    from cifar_lab.data.loader import BatchLoader
    from cifar_lab.terminal.progress import with_progress
    from cifar_lab.trained import answer

    paths, rows = files(folder), list[dict[str, Any]]()
    labels = read_array(paths[0].parent / _LABELS)
    for path in with_progress(paths, f"{trained.label}: corruptions"):
        images = read_array(path)
        if len(images) != len(labels) or len(labels) % SEVERITIES:
            raise DataError(
                f"{path} holds {len(images):,} images with {len(labels):,} labels: not {SEVERITIES} equal parts"
            )
        every, count = LabelledImages.checked(images, labels), len(labels) // SEVERITIES
        for severity in range(SEVERITIES):
            part = LabelledImages(*(each[severity * count : (severity + 1) * count] for each in every))
            logits, true = answer(trained, BatchLoader(part, _BATCH_SIZE, trained.mean, trained.std), tta)
            acc = float((logits.argmax(1) == true).double().mean())
            rows.append({"corruption": path.stem, "severity": severity + 1, "images": count, "acc": acc})
    return rows


def by_severity(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a row of accuracies for each corruption and for their mean, followed by the four for validation."""
    by_corruption: dict[str, list[float]] = {}
    for row in rows:
        by_corruption.setdefault(row["corruption"], []).append(row["acc"])
    main = {name: values for name, values in by_corruption.items() if name not in _EXTRA}
    if main:
        main["mean"] = [sum(values) / len(main) for values in zip(*main.values(), strict=True)]
    table = {**main, **{name: values for name, values in by_corruption.items() if name in _EXTRA}}
    return [
        {"corruption": name}
        | {str(severity): f"{value:.2%}" for severity, value in enumerate(values, 1)}
        | {"mean": f"{sum(values) / len(values):.2%}"}
        for name, values in table.items()
    ]
