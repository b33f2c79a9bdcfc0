"""A search for the best settings, by Optuna: its trials are ordinary runs."""

from cifar_lab.search.command import main

__all__ = ["main"]
