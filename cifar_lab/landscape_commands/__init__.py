"""What `python -m cifar_lab.landscape` does: runs in, numbers and figures out, point by point."""

from cifar_lab.landscape_commands.covariate_shift import covariate_shift
from cifar_lab.landscape_commands.curvature import curvature
from cifar_lab.landscape_commands.interpolate import interpolate
from cifar_lab.landscape_commands.settings import Settings
from cifar_lab.landscape_commands.surface import surface
from cifar_lab.landscape_commands.written import Written

__all__ = ["Settings", "Written", "covariate_shift", "curvature", "interpolate", "surface"]
