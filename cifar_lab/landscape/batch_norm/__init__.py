"""How BatchNorm helps optimisation (arXiv:1805.11604): runs with and without it, compared."""
