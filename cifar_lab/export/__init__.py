"""A trained network as files that others can use: written, read back and compared, and described in a card."""

from cifar_lab.export.command import main

__all__ = ["main"]
