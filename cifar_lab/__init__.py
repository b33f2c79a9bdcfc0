"""A CIFAR-10 ablation laboratory: every ablation is data."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cifar-lab")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
