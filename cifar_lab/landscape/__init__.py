"""The loss around runs: its geometry, and what BatchNorm does to it."""

from cifar_lab.landscape.command import main

__all__ = ["main"]
