"""`python -m cifar_lab.evaluate`."""

from cifar_lab.evaluate.command import main

if __name__ == "__main__":
    main()
