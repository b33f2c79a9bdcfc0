"""How good a trained network is on images: measured, written, told."""

from cifar_lab.evaluation.evaluating import Settings, evaluate
from cifar_lab.evaluation.written import write

__all__ = ["Settings", "evaluate", "write"]
