"""The machine: what it does natively, its processes and signals, what a result comes from."""
