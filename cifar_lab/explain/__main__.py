"""`python -m cifar_lab.explain`."""

from cifar_lab.explain.command import main

if __name__ == "__main__":
    main()
