"""The published report beside what was measured."""

from cifar_lab.report.command import main, parameters, read, report

__all__ = ["main", "parameters", "read", "report"]
