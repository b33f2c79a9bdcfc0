"""Hyperparameter search with Optuna, whose trials are ordinary runs."""

from cifar_lab.search.command import main

__all__ = ["main"]
