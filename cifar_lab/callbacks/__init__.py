"""What happens beside training."""

from cifar_lab.callbacks.averaging import SWA
from cifar_lab.callbacks.checkpoints import best_and_last
from cifar_lab.callbacks.progress import Progress
from cifar_lab.callbacks.recorder import Recorder
from cifar_lab.callbacks.throughput import Throughput

__all__ = ["SWA", "Progress", "Recorder", "Throughput", "best_and_last"]
