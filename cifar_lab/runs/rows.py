"""The rows of `metrics.csv`, written one by one and taken back."""

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path

from cifar_lab.runs.files import replacing
from cifar_lab.runs.reading import UnreadableError


def append_row(path: Path, row: Mapping[str, float | int | None]) -> None:
    """Add a row; the first one names the columns. It is on the disk at the return."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if is_new:
            writer.writeheader()
        writer.writerow({name: None if value is None or math.isnan(value) else value for name, value in row.items()})
        # On the disk before the checkpoint that counts on it.
        file.flush()
        os.fsync(file.fileno())


def keep_epochs(path: Path, epochs: int) -> None:
    """Remove the rows of later epochs than `epochs`, whose own may be missing, and the earlier one of two for an epoch.

    Raises:
        UnreadableError: The row of an epoch before `epochs` is damaged or missing.
    """
    header, *rows = [*path.read_text(errors="replace").splitlines(keepends=True), ""]
    kept = {row.partition(",")[0]: row for row in rows if row.endswith("\n")}
    wanted = [str(epoch) for epoch in range(1, epochs + 1)]
    lost = [epoch for epoch in wanted[:-1] if epoch not in kept]
    if lost:
        raise UnreadableError(f"{path} lacks epoch {lost[0]}, which its checkpoint goes on from")
    with replacing(path) as file:
        file.writelines([header, *(kept[epoch] for epoch in wanted if epoch in kept)])
    if not kept.keys() & set(wanted):  # its header may be half written; the next row writes it
        path.unlink()
