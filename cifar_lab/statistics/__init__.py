"""Intervals of accuracies, and what differences between seeds mean."""
