"""Training loops that take turns on one machine, each in a process of its own."""

from cifar_lab.benchmarking.comparison import Comparison, compare, describe_host

__all__ = ["Comparison", "compare", "describe_host"]
