"""How a command ends by a fault of its own, so that it does not look like the user's."""

import sys
import traceback

from cifar_lab import __version__
from cifar_lab.machine import exit_codes


def report_fault() -> int:
    """Print the exception at hand with its traceback, and where to report it; returns the exit code."""
    traceback.print_exc()
    line = f"this is a fault of cifar_lab {__version__}; please report the lines above as CONTRIBUTING.md says"
    print(f"error: {line}", file=sys.stderr, flush=True)
    return exit_codes.FAILED
