"""Benchmark of training loops that take turns on one machine, each in its own process."""

from cifar_lab.benchmark.command import main

__all__ = ["main"]
