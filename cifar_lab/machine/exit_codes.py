"""Exit codes of all commands, and the exception for user errors."""

import signal

FAILED = 1  # a run failed or diverged, or a sweep is incomplete
USAGE = 2  # bad configuration, data or checkpoint path


class UsageError(ValueError):
    """The command line, or a file that it names, cannot be used. Printed as one line; exit code `USAGE`."""


def interrupted(number: int) -> int:
    """Return the exit code after a signal, as in shells: 130 for Ctrl-C, else 143, as for SIGTERM."""
    return 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
