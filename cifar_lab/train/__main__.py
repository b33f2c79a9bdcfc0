"""Entry point of `python -m cifar_lab.train`."""

from cifar_lab.train.command import main

if __name__ == "__main__":
    main()
