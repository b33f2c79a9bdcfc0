"""Engines that run the jobs of a command line: this process in turn, parallel processes, Slurm, Ray."""
