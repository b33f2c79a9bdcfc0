"""`python -m cifar_lab.search`."""

from cifar_lab.search.command import main

if __name__ == "__main__":
    main()
