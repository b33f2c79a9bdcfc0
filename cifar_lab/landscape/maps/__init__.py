"""The subcommands of `cifar-lab landscape` on the weights of runs, computed point by point."""

from cifar_lab.landscape.maps.along import covariate_shift, curvature, interpolate
from cifar_lab.landscape.maps.measured_run import Outputs, Settings
from cifar_lab.landscape.maps.surface import surface

__all__ = ["Outputs", "Settings", "covariate_shift", "curvature", "interpolate", "surface"]
