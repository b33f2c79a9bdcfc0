"""The console script `cifar-lab`: each subcommand is the same as `python -m cifar_lab.<name>`."""

import os
import sys

from cifar_lab import __version__, train

COMMANDS = {"train": train.main}
_USAGE = f"usage: cifar-lab [--version] {{{','.join(COMMANDS)}}} ...\n       cifar-lab train --help"


def main() -> None:
    """Hand the command line to the subcommand that it names; exits with 2 where it names none."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that components in the folder at hand are found
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in COMMANDS:
        del sys.argv[1]
        COMMANDS[first]()
    elif first in ("-sc", "--shell-completion"):
        # The shell asks the program that it completes, and one subcommand has something to complete.
        COMMANDS["train"]()
    elif first == "--version":
        print(f"cifar-lab {__version__}")
    else:
        print(_USAGE, file=sys.stdout if first in ("-h", "--help") else sys.stderr)
        sys.exit(0 if first in ("-h", "--help") else 2)
