"""Comparisons as text."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cifar_lab.runs import labels
from cifar_lab.runs.labels import data_words, protocol_words
from cifar_lab.table import pairs
from cifar_lab.table.comparison import Comparison

CHOSEN, LAST, VAL = "test acc %", "test acc %, last epoch", "val acc %"
_ACCURACIES = "Accuracies in percent, as mean ± standard deviation (number of runs) over seeds"
_CHOSEN_AND_LAST = (
    f"{_ACCURACIES}: of the chosen epoch's weights, and of the last epoch's, which nothing selected. Validation "
    "accuracy is the chosen epoch's; under `protocol=report` and `last` it is measured on the test set."
)
_MEANS = "Seconds and images/s are means over the runs. Columns with `tta` use test-time augmentation."


def table(comparison: Comparison) -> pd.DataFrame:
    """Return the rows as text: varying settings, accuracies over seeds, protocol, parameters, seconds, speed, state."""
    rows, sizes_differ, tta = [], not comparison.common("train_size"), _tta(comparison)
    chooses = _chooses(comparison)
    for row in comparison.rows:
        speed = row.values("images_per_second")
        rows.append(
            {
                **row.cells,
                f"{CHOSEN}{tta}": over_seeds(row.values(comparison.metric)),
                **({f"{LAST}{tta}": over_seeds(row.values(f"{comparison.metric}_final"))} if chooses else {}),
                **({VAL: over_seeds(row.values("val/acc"))} if chooses else {}),
                "protocol": row.protocol,
                **({"training images": _mean(row.values("train_size"))} if sizes_differ else {}),
                "parameters": _mean(row.values("num_parameters")),
                "seconds": _mean(row.values("seconds")),
                "images/s": _mean(speed),
                "state": row.state,
            }
        )
    return pd.DataFrame(rows)


def _chooses(comparison: Comparison) -> bool:
    """Return whether a run chose an epoch; if not, the last epoch is the result and `val/*` is on the test set."""
    return any(row.protocol != labels.LAST for row in comparison.rows)


def _tta(comparison: Comparison) -> str:
    """Return the suffix that marks test-time augmentation in column heads."""
    return ", tta" if comparison.metric == "test/acc_tta" else ""


def over_seeds(values: np.ndarray) -> str:
    """Format fractions in percent, `45.78 ± 0.31 (3)`: mean, standard deviation (over n - 1) if n > 1, and n."""
    if len(values) == 0:
        return "-"
    spread = f" ± {_percent(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{_percent(values.mean())}{spread} ({len(values)})"


def markdown(comparison: Comparison, title: str, folder: Path, pictures: Sequence[str] = ()) -> str:
    """Return a comparison of at least one run as Markdown for a file in `folder`, next to its `pictures`."""
    parts = [f"# {title}", "\n".join(facts(comparison)), as_markdown(table(comparison))]
    accuracies = _CHOSEN_AND_LAST if _chooses(comparison) else f"{_ACCURACIES}, of the last epoch's weights."
    parts.append(f"{accuracies} {_MEANS}")
    tested = pairs.described(comparison.rows, comparison.metric)
    parts += ["## Differences", "\n".join(tested)] if tested else []
    parts += [f"![{Path(name).stem}]({name})" for name in pictures]
    parts += ["## Runs", as_markdown(_runs(comparison, folder))]
    return "\n\n".join(part for part in parts if part) + "\n"


def facts(comparison: Comparison) -> list[str]:
    """Return lines on the common settings of all finished runs: data, images, epochs, protocol, hardware."""
    if not comparison.results:
        return ["No run has finished."]
    finished = [record for row in comparison.rows for record in row.finished]
    data = sorted({data_words(record.result["options"]["data"], record.settings) for record in finished})
    trained, available = comparison.common("train_size"), comparison.common("train_available")
    images = "numbers of training images differ" if trained is None else f"{trained:,} training images"
    if trained is not None and trained != available:
        images += f" of {available:,}" if available else ", a subset of those available"
    epochs = comparison.common("epochs")
    protocols = {(row.protocol, row.holds_out) for row in comparison.rows if row.finished}
    lines = [f"- data: {' and '.join(data)}, {images}"]
    lines += [f"- epochs: {epochs}"] if epochs else []
    lines += [f"- protocol: {name}: {protocol_words(name, held)}" for name, held in protocols if len(protocols) == 1]
    devices = {trained_on(result): None for result in comparison.results}
    return [*lines, f"- hardware: {'; '.join(devices)}"]


def trained_on(result: Mapping[str, Any]) -> str:
    """Describe the device, precision and number of processes of a result."""
    device, count = f"{result['hardware']['device_name']}, {result['precision']}", result.get("world_size", 1)
    if count == 1:
        return device
    per_process = ", BatchNorm per process" if result["batch_norm_per_process"] else ""
    return f"{device}, {count} processes{per_process}"


def _runs(comparison: Comparison, folder: Path) -> pd.DataFrame:
    lines, metric = [], comparison.metric
    for cells, record in ((row.cells, record) for row in comparison.rows for record in row.records):
        path = "" if record.folder is None else Path(os.path.relpath(record.folder, folder)).as_posix()
        lines.append(
            {
                **cells,
                "seed": "" if record.seed is None else str(record.seed),
                f"{CHOSEN}{_tta(comparison)}": _percent(record.result[metric]) if metric in record.result else "-",
                "best epoch": str(record.result.get("best_epoch") or "-"),
                "state": record.description,
                "folder": f"[{path}](<{path}>)" if path else "",
            }
        )
    return pd.DataFrame(lines)


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}".removesuffix("%")


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():,.0f}" if len(values) else "-"


def as_markdown(frame: pd.DataFrame) -> str:
    """Format a table as Markdown, equal to `DataFrame.to_markdown`, which takes minutes for ten thousand rows."""
    columns = [[str(cell).replace("|", "\\|") for cell in (name, *frame[name])] for name in frame]
    widths = [max(map(len, column)) for column in columns]
    rule = "|".join(f":{'-' * (width + 1)}" for width in widths)
    padded = [[cell.ljust(width) for cell in column] for column, width in zip(columns, widths, strict=True)]
    head, *rows = (f"| {' | '.join(cells)} |" for cells in zip(*padded, strict=True))
    return "\n".join([head, f"|{rule}|", *rows])
