"""Export of trained networks: files that are written, read back, compared and described in a model card."""

from cifar_lab.export.command import main

__all__ = ["main"]
