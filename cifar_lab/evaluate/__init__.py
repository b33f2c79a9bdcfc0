"""Evaluation of trained networks: accuracy, calibration and mistakes."""

from cifar_lab.evaluate.command import main

__all__ = ["main"]
