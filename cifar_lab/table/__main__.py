"""`python -m cifar_lab.table`."""

from cifar_lab.table.command import main

if __name__ == "__main__":
    main()
