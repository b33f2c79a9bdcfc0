"""Classify image files with a trained network: `python -m cifar_lab.predict RUN IMAGE...`."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from cifar_lab.data.photos import Resize, find_images, read_images
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.printing import Complaints, print_table, printable
from cifar_lab.terminal.progress import with_progress
from cifar_lab.trained.arguments import Network, Overrides, check_there, load_noting, takes_overrides

if TYPE_CHECKING:
    from cifar_lab.trained import Trained


# An image file, and its most probable classes with their probabilities, from 0 to 1.
Prediction = tuple[Path, list[tuple[str, float]]]


@takes_overrides(without=("data_root",))
def predict(
    network: Network,
    overrides: Overrides,
    images: Annotated[list[str], typer.Argument(help="Image files, folders to search, or patterns.", metavar="IMAGE")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print, the most probable first.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 100,
    resize: Annotated[
        Resize, typer.Option(help="crop: the largest central square; squash: the whole image, distorted.")
    ] = "crop",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each image.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> int:
    """Classify images with a trained network; exit with 1 if an image could not be read."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: print one of them")
    check_there([network])
    complaints = Complaints()
    paths = find_images(images, complaints)
    trained = load_noting(network, overrides)
    prints_at_once = (as_json or as_csv) and sys.stdout.isatty()  # where the output itself shows the progress
    read = read_images(paths if prints_at_once else with_progress(paths, "images"), resize, complaints)
    write = _write_json if as_json else _write_csv if as_csv else _write_table
    write(_predictions(trained, read, batch_size, top))
    return exit_codes.FAILED if complaints.count else 0


def _predictions(
    trained: "Trained", read: Iterator[tuple[Path, np.ndarray]], batch_size: int, top: int
) -> Iterator[Prediction]:
    import torch

    while batch := list(islice(read, batch_size)):
        pixels = torch.from_numpy(np.stack([image for _, image in batch]))
        probabilities = trained.logits_of_pixels(pixels).cpu().double().softmax(dim=1)
        names = trained.class_names(probabilities.shape[1])
        # Stable, so the first of equal logits wins, as with argmax in the test: 16-bit logits are often equal.
        ranked = probabilities.sort(dim=1, descending=True, stable=True)
        values, labels = (ranks[:, :top] for ranks in ranked)
        for (path, _), chosen, shares in zip(batch, labels.tolist(), values.tolist(), strict=True):
            yield path, [(names[label], share) for label, share in zip(chosen, shares, strict=True)]


def _write_json(predictions: Iterable[Prediction]) -> None:
    for image, top in predictions:
        classes = [{"class": name, "probability": probability} for name, probability in top]
        print(json.dumps({"image": str(image), **classes[0], "top": classes}))


def _write_csv(predictions: Iterable[Prediction]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, (image, top) in enumerate(predictions):
        if not number:
            ranks = range(1, len(top) + 1)
            writer.writerow(["image", *(name for rank in ranks for name in (f"class_{rank}", f"probability_{rank}"))])
        writer.writerow([printable(str(image)), *(value for pair in top for value in pair)])


def _write_table(predictions: Iterable[Prediction]) -> None:
    rows = [
        {"image": printable(str(image))}
        | {f"top {rank}": f"{share:6.1%} {name}" for rank, (name, share) in enumerate(top, start=1)}
        for image, top in predictions
    ]
    if rows:
        print_table(rows, left=rows[0])


def main() -> None:
    """Entry point of the command line."""
    run_command(predict, loses=())


if __name__ == "__main__":
    main()
