"""Lightning callbacks of a run."""

from cifar_lab.train.callbacks.augmented import AugmentedTest
from cifar_lab.train.callbacks.averaging import EMA, SWA
from cifar_lab.train.callbacks.last_epoch import LastEpoch, batches_of_run
from cifar_lab.train.callbacks.lookahead import Lookahead
from cifar_lab.train.callbacks.progress import Progress, ProgressOfTest
from cifar_lab.train.callbacks.recorder import Recorder
from cifar_lab.train.callbacks.saving import CheckpointFiles, Saving, Stopping, best
from cifar_lab.train.callbacks.snapshots import Snapshots
from cifar_lab.train.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "SWA",
    "AugmentedTest",
    "CheckpointFiles",
    "LastEpoch",
    "Lookahead",
    "Progress",
    "ProgressOfTest",
    "Recorder",
    "Saving",
    "Snapshots",
    "Stopping",
    "Throughput",
    "batches_of_run",
    "best",
]
