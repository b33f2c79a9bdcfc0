"""The loss landscape of runs: its geometry and the effect of BatchNorm."""

from cifar_lab.landscape.command import main

__all__ = ["main"]
