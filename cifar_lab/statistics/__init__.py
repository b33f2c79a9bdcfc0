"""Confidence intervals of accuracies, and tests of differences over seeds."""
