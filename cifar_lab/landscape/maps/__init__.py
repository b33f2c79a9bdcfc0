"""What `python -m cifar_lab.landscape` does: runs in, numbers and figures out, point by point."""

from cifar_lab.landscape.maps.covariate_shift import covariate_shift
from cifar_lab.landscape.maps.curvature import curvature
from cifar_lab.landscape.maps.interpolate import interpolate
from cifar_lab.landscape.maps.output import Written
from cifar_lab.landscape.maps.settings import Settings
from cifar_lab.landscape.maps.surface import surface

__all__ = ["Settings", "Written", "covariate_shift", "curvature", "interpolate", "surface"]
