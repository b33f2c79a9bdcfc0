"""The machine: hardware, compilation, processes, signals and provenance."""
