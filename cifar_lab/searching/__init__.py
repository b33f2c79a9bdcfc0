"""A search for the best settings, by Optuna: its trials, and which settings matter."""

from cifar_lab.searching.trials import Strategy, Trial, Trials, check_installed

__all__ = ["Strategy", "Trial", "Trials", "check_installed"]
