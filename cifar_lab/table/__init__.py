"""Tables and figures of compared runs: a row for each composition, over its seeds."""

from cifar_lab.table.command import compare_folders, main, report

__all__ = ["compare_folders", "main", "report"]
