"""A command line, checked: what `train` and `search` begin with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from cifar_lab.config.preflight import Preflight


def checked(arguments: Sequence[str]) -> Preflight:
    """Check a command line, and print what is allowed but worth a word.

    Args:
        arguments: Without the program's name.

    Raises:
        ValueError: It cannot be run, in one line.
    """
    with in_one_line(), own_hydra():
        preflight = Preflight([expanded(argument) for argument in arguments])
        if preflight.trains:
            preflight.check()
    for note in preflight.notes:
        print(f"note: {note}", flush=True)
    return preflight


@contextmanager
def in_one_line() -> Iterator[None]:
    """Raise `ValueError`, in one line, for whatever is raised inside."""
    try:
        yield
    except Exception as error:  # Hydra raises nearly anything at what it did not foresee
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


@contextmanager
def own_hydra() -> Iterator[None]:
    """Let Hydra begin anew, and give back what a caller has begun with it."""
    callers = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = callers


def expanded(argument: str) -> str:
    """Put the home folder for the `~` of `data.root=~/data`, which shells leave alone and Hydra refuses."""
    key, separator, value = argument.partition("=")
    return f"{key}={Path(value).expanduser()}" if separator and value.startswith("~/") else argument
