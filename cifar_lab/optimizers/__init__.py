"""This project's optimizers, parameter groups and learning-rate schedule."""

from cifar_lab.optimizers.groups import Grouped, make_optimizer, make_scheduler, relative_rates
from cifar_lab.optimizers.muon import Muon
from cifar_lab.optimizers.schedules import LinearDecay
from cifar_lab.optimizers.sign import SignSGD, Signum

__all__ = ["Grouped", "LinearDecay", "Muon", "SignSGD", "Signum", "make_optimizer", "make_scheduler", "relative_rates"]
