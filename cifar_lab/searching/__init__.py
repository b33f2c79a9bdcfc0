"""A search for the best settings, by Optuna: its trials, and which settings matter."""

from cifar_lab.searching.storage import check_installed
from cifar_lab.searching.trials import Strategy, Trial, Trials

__all__ = ["Strategy", "Trial", "Trials", "check_installed"]
