"""What a trained network looks at, and what its units do."""

from cifar_lab.explanation.activations import LayerActivations, measure, totals
from cifar_lab.explanation.examples import Example, mistaken, of_files
from cifar_lab.explanation.explaining import explain_examples, explain_filters, explain_units, measured, network_row
from cifar_lab.explanation.gradcam import first_filters, grad_cam, map_layer

__all__ = [
    "Example",
    "LayerActivations",
    "explain_examples",
    "explain_filters",
    "explain_units",
    "first_filters",
    "grad_cam",
    "map_layer",
    "measure",
    "measured",
    "mistaken",
    "network_row",
    "of_files",
    "totals",
]
