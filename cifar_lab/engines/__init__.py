"""Who runs the jobs of a command line: this process in turn, processes side by side, Slurm, Ray."""
