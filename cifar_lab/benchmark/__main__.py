"""`python -m cifar_lab.benchmark`."""

from cifar_lab.benchmark.command import main

if __name__ == "__main__":
    main()
