"""Training loops that take turns on one machine, each in a process of its own."""

from cifar_lab.benchmark.command import main

__all__ = ["main"]
