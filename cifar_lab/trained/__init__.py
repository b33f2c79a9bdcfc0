"""Networks that have been trained, from a run's folder or a file of weights, ready to be used."""

from cifar_lab.trained.loading import load
from cifar_lab.trained.network import Trained
from cifar_lab.trained.said import Said, numbers

__all__ = ["Said", "Trained", "load", "numbers"]
