"""Geometry of a loss. Functions take a loss as a function of weights and return arrays."""
