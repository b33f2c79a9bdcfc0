"""Explanations of a trained network: Grad-CAM, filters, activations, dead units."""

from cifar_lab.explain.command import main

__all__ = ["main"]
