"""What a trained network looks at, and what its units do."""

from cifar_lab.explain.command import main

__all__ = ["main"]
