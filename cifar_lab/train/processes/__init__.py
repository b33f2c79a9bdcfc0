"""Processes that train one run together, each with its part of every batch."""

from cifar_lab.train.processes.led import Leader, follow, leading
from cifar_lab.train.processes.spawned import trained_by

__all__ = ["Leader", "follow", "leading", "trained_by"]
