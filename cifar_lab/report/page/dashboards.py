"""The report's tables for TensorBoard: their curves, and a category of custom scalars for each table."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from cifar_lab.report.page.parts import names
from cifar_lab.report.reproduction import PROTOCOLS, Reproduction
from cifar_lab.runs import Record
from cifar_lab.runs.labels import val_label


def write(reproduction: Reproduction, folder: Path) -> None:
    """Write the curves of every row's runs, over epochs, under tags of their table.

    Charts of custom scalars choose tags, never runs. So a chart of one table needs tags of that table, which are here
    and not in the runs' own event files. Event files of an earlier report in the folder are removed.
    """
    for old in folder.glob("**/events.out.tfevents.*"):
        old.unlink()
    layout: dict[str, dict[str, list[object]]] = {}
    curves: dict[str, list[tuple[str, Record]]] = {}
    for section in (*reproduction.sections, *reproduction.shortened):
        name, title = names(section)
        shown = [(entry.row.name, run) for entry in section.entries for run in entry.runs if run.metrics is not None]
        for row, run in shown:
            curves.setdefault(f"{row},protocol={run.protocol},seed={run.seed}", []).append((name, run))
        if shown:
            there = {run.protocol for _, run in shown}
            labels = {one: val_label(one == "holdout") for one in PROTOCOLS if one in there}
            layout[title] = {
                **{f"{label} accuracy": ["Multiline", [f"{name}/{one}/val/acc$"]] for one, label in labels.items()},
                "training loss": ["Multiline", [f"{name}/.*/train/loss$"]],
            }
    for label, runs in curves.items():
        with SummaryWriter(str(folder / label.replace("/", "_"))) as writer:
            writer.add_custom_scalars(layout)
            for name, run in runs:
                assert run.metrics is not None
                for quantity in ("val/acc", "train/loss"):
                    known = run.metrics[["epoch", quantity]].dropna()
                    for epoch, value in zip(known["epoch"], known[quantity], strict=True):
                        writer.add_scalar(f"{name}/{run.protocol}/{quantity}", float(value), int(epoch))
