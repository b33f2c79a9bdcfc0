"""Optuna's study of a search, in a journal that every process of the search writes.

A file, and no database: SQLite's locks do not hold on many network file systems.
"""

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cifar_lab.runs import guarded
from cifar_lab.runs.fingerprints import leaves
from cifar_lab.search.folder import SearchFolder

if TYPE_CHECKING:
    import optuna

_DEFINITION = "definition"


def check_installed() -> None:
    """Refuse to search without Optuna.

    Raises:
        ValueError: In one line that says how to get it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ValueError("a search needs optuna, which is not installed: pip install 'cifar-lab[search]'")


def opened(folder: SearchFolder, definition: Mapping[str, Any], pruner: "optuna.pruners.BasePruner") -> "optuna.Study":
    """The study in a folder, begun if there is none.

    Args:
        folder: Made if it does not exist.
        definition: What makes it this search and no other, plain values.
        pruner: Says which trials end early.

    Raises:
        ValueError: The folder holds another search, or what it holds cannot be read.
        OSError: The folder cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.make()
    with guarded(folder.journal_file):
        try:
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(_journal(folder)),
                study_name="search",
                direction="maximize",
                load_if_exists=True,
                pruner=pruner,
            )
        except (ValueError, KeyError) as error:
            told, how = " ".join(str(error).split()), "remove it, and the same command finds its runs again"
            raise ValueError(f"{folder.journal_file} cannot be read: {told}; {how}") from None
        kept = study.user_attrs.get(_DEFINITION)
        if kept is None:
            study.set_user_attr(_DEFINITION, definition)
        else:
            _check_same(folder, kept, definition)
    return study


def _journal(folder: SearchFolder) -> "optuna.storages.journal.JournalFileBackend":
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # Absolute, and no symbolic link: Optuna waits for ever for a relative one that a killed process has left.
    path = os.path.abspath(folder.journal_file)
    lock = JournalFileOpenLock(path)
    journal = JournalFileBackend(path, lock)
    lock.acquire()
    try:
        with open(path, "rb+") as file:  # a disk that was full has cut a line, behind which Optuna reads no other
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
    return journal


def _check_same(folder: SearchFolder, kept: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    before, now = dict(leaves(kept)), dict(leaves(own))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        told = ", ".join(f"{key} ({_shown(before.get(key))} there, {_shown(now.get(key))} here)" for key in changed)
        raise ValueError(f"{folder.folder} holds another search: {told}; name= gives this one a folder of its own")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
