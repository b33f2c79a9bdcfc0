"""The machine: hardware, compilation, processes, signals, provenance."""
