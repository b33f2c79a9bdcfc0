"""The folder of a search and its Optuna study, a journal file that every process of the search writes.

The study is a file rather than a database because SQLite's locks fail on many network file systems.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import guarded
from cifar_lab.runs.fingerprints import leaves

if TYPE_CHECKING:
    import optuna

_DEFINITION = "definition"


class SearchFolder:
    """Paths in the folder of a search, which need not exist."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.journal_file = self.folder / "trials.journal"
        self.table_markdown = self.folder / "search.md"
        self.table_csv = self.folder / "search.csv"
        self.history_figure = self.folder / "history.png"
        self.importance_figure = self.folder / "importance.png"

    def lock(self, number: int) -> Path:
        """Return the lock file of a trial, held by the process that trains it."""
        return self.folder / ".trials" / f"{number}.lock"


def check_installed() -> None:
    """Raise `ValueError` with the command to install Optuna if it is missing."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("a search needs optuna, which is not installed: pip install 'cifar-lab[search]'")


def opened(folder: SearchFolder, definition: Mapping[str, Any], pruner: "optuna.pruners.BasePruner") -> "optuna.Study":
    """Open the study in a folder, or create one.

    Raises:
        ValueError: The folder holds a different search, or its journal cannot be read.
        OSError: The folder cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.lock(0).parent.mkdir(parents=True, exist_ok=True)
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
            why, how = " ".join(str(error).split()), "remove it, and the same command finds the runs again"
            raise UsageError(f"{folder.journal_file} cannot be read: {why}; {how}") from None
        kept = study.user_attrs.get(_DEFINITION)
        if kept is None:
            study.set_user_attr(_DEFINITION, definition)
        else:
            _check_same(folder, kept, definition)
    return study


def _journal(folder: SearchFolder) -> "optuna.storages.journal.JournalFileBackend":
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # Optuna's symbolic link lock would hang: if a killed process leaves it and its path is relative, Optuna waits
    # forever.
    path = os.path.abspath(folder.journal_file)
    lock = JournalFileOpenLock(path)
    journal = JournalFileBackend(path, lock)
    lock.acquire()
    try:
        with open(path, "rb+") as file:  # a full disk may have cut a line, after which Optuna reads no further
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
    return journal


def _check_same(folder: SearchFolder, kept: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    def text(value: object) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    before, now = dict(leaves(kept)), dict(leaves(own))
    changed = [
        f"{key} ({text(before.get(key))} there, {text(now.get(key))} here)"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise UsageError(
            f"{folder.folder} holds a different search: {', '.join(changed)}; name= gives this search its own folder"
        )
