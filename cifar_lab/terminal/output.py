"""Output folder of a command."""

import os
from pathlib import Path

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.printing import note


def check_writable(folder: Path) -> None:
    """Raise `UsageError` for a folder that cannot be made or written; the message suggests `--output`."""
    place = next(one for one in (folder, *folder.parents) if os.path.exists(one))
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise UsageError(f"{folder} cannot be written; set --output to a different folder")


def writable(default: Path, output: Path | None) -> Path | None:
    """Return the folder of `--output`, or `default`; print a note and return None if `default` cannot be written.

    Other users' runs may be read-only. The command then only prints its results.

    Raises:
        UsageError: The folder that `--output` names cannot be written.
    """
    if output is not None:
        check_writable(output)
        return output
    try:
        check_writable(default)
    except UsageError as error:
        note(f"nothing is written: {error}")
        return None
    return default
