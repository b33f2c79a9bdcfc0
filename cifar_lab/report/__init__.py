"""Comparison of the published report with measured runs."""

from cifar_lab.report.command import main, parameters, read, report

__all__ = ["main", "parameters", "read", "report"]
