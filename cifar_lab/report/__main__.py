"""`python -m cifar_lab.report`."""

from cifar_lab.report.command import main

if __name__ == "__main__":
    main()
