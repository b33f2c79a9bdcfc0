"""Runs side by side: a row for each composition, over its seeds; tables, figures."""

from cifar_lab.table.command import compare_folders, main, report

__all__ = ["compare_folders", "main", "report"]
