"""`python -m cifar_lab.landscape`."""

from cifar_lab.landscape.command import main

if __name__ == "__main__":
    main()
