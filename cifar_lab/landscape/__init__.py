"""The geometry of the loss around runs, and the effect of BatchNorm on it."""

from cifar_lab.landscape.command import main

__all__ = ["main"]
