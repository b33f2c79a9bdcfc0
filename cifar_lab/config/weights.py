"""Resolve `weights=`, a run or a file of weights, to a file and the digest of its content. Does not import torch."""

from contextlib import suppress
from pathlib import Path

from cifar_lab.data import files, own
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, is_run

_NAMED = "name a run's folder, which has a status.json, or a file of weights"


def file_of(named: str) -> Path:
    """Return the file that `weights=` names; for a run, the weights of its chosen epoch.

    Raises:
        ValueError: The file does not exist or cannot be read.
    """
    path = files.resolve(named)
    if path.is_dir():
        if not is_run(path):
            raise UsageError(f"weights={named} is not a run; {_NAMED}")
        path = Run(path).chosen_weights()
    try:
        with path.open("rb"):
            return path
    except FileNotFoundError:
        raise UsageError(f"weights={named} does not exist; {_NAMED}") from None
    except OSError as error:
        raise UsageError(f"weights={named} cannot be read: {error.strerror}") from None


def digest(named: str | None) -> str | None:
    """Return the SHA-256 of the content of `file_of`; None without a file."""
    if named is not None:
        with suppress(UsageError, OSError):
            return own.digest(str(file_of(named)))
    return None
