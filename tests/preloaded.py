"""Imports and reads what commands need once, for the server that forks the processes of `faults`.

Nothing is computed here: on a machine with a GPU, a process forked after a backward pass cannot run one.
"""

# ruff: noqa: F401
import hydra._internal.logging_config
import lightning.pytorch.callbacks.progress.rich_progress
import matplotlib.pyplot

import cifar_lab.data.datamodule
import cifar_lab.machine.hardware
import cifar_lab.machine.provenance
import cifar_lab.models
import cifar_lab.optimizers
import cifar_lab.train
import cifar_lab.train.assembly
import cifar_lab.train.classifier
import cifar_lab.train.fitting
import cifar_lab.train.loggers.tensorboard
import cifar_lab.train.processes.spawned
import cifar_lab.train.summary
import tests.faults
from cifar_lab.config import checked
from tests.conftest import TINY, blank_png

blank_png()
checked(TINY)
