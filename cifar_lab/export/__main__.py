"""`python -m cifar_lab.export`."""

from cifar_lab.export.command import main

if __name__ == "__main__":
    main()
