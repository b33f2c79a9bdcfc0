"""How BatchNorm helps optimisation (arXiv:1805.11604): comparison of runs with and without it."""
