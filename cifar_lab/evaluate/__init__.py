"""How good trained networks are on images: measured, saved, printed."""

from cifar_lab.evaluate.command import main

__all__ = ["main"]
