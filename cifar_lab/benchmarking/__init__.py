"""Training loops that take turns on one machine, each in a process of its own."""

from cifar_lab.benchmarking.comparison import Comparison, compare, describe_host
from cifar_lab.benchmarking.race import CHECK_STEPS

__all__ = ["CHECK_STEPS", "Comparison", "compare", "describe_host"]
