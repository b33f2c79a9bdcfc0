"""What happens beside training."""

from cifar_lab.callbacks.averaging import EMA, SWA
from cifar_lab.callbacks.checkpoints import best
from cifar_lab.callbacks.probe import GradientProbe
from cifar_lab.callbacks.progress import Progress
from cifar_lab.callbacks.pruning import Pruning
from cifar_lab.callbacks.recorder import Recorder
from cifar_lab.callbacks.saving import CheckpointFiles, Saving, Stopping
from cifar_lab.callbacks.snapshots import Snapshots
from cifar_lab.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "SWA",
    "CheckpointFiles",
    "GradientProbe",
    "Progress",
    "Pruning",
    "Recorder",
    "Saving",
    "Snapshots",
    "Stopping",
    "Throughput",
    "best",
]
