"""End a command that has a bug, in a way that does not look like the user's error."""

import sys
import traceback

from cifar_lab import __version__
from cifar_lab.machine import exit_codes


def report_fault() -> int:
    """Print the current exception's traceback and how to report it; return the exit code."""
    traceback.print_exc()
    line = f"this is a bug in cifar_lab {__version__}; see CONTRIBUTING.md for how to report it"
    print(f"error: {line}", file=sys.stderr, flush=True)
    return exit_codes.FAILED
