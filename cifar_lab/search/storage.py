"""The folder of a search, and Optuna's study in it: a journal that every process of the search writes.

A file and not a database, because SQLite's locks fail on many network file systems.
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
    """A folder with the runs of a search; it need not exist."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.journal_file = self.folder / "trials.journal"
        self.table_markdown = self.folder / "search.md"
        self.table_csv = self.folder / "search.csv"
        self.history_figure = self.folder / "history.png"
        self.importance_figure = self.folder / "importance.png"

    def lock(self, number: int) -> Path:
        """The lock of a trial, which the process that trains it holds."""
        return self.folder / ".trials" / f"{number}.lock"


def check_installed() -> None:
    """Raise `ValueError`, in one line that says how to get it, if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("a search needs optuna, which is not installed: pip install 'cifar-lab[search]'")


def opened(folder: SearchFolder, definition: Mapping[str, Any], pruner: "optuna.pruners.BasePruner") -> "optuna.Study":
    """Open the study in a folder, or begin one, if no other search has it.

    Raises:
        ValueError: The folder holds another search, or its journal cannot be read.
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
            why, how = " ".join(str(error).split()), "remove it, and the same command finds its runs again"
            raise UsageError(f"{folder.journal_file} cannot be read: {why}; {how}") from None
        kept = study.user_attrs.get(_DEFINITION)
        if kept is None:
            study.set_user_attr(_DEFINITION, definition)
        else:
            _check_same(folder, kept, definition)
    return study


def _journal(folder: SearchFolder) -> "optuna.storages.journal.JournalFileBackend":
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # Not a symbolic link as a lock: left by a killed process, Optuna waits for it forever if its path is relative.
    path = os.path.abspath(folder.journal_file)
    lock = JournalFileOpenLock(path)
    journal = JournalFileBackend(path, lock)
    lock.acquire()
    try:
        with open(path, "rb+") as file:  # a full disk may have cut a line, after which Optuna would read no other
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
            f"{folder.folder} has a different search: {', '.join(changed)}; set name= for a separate folder"
        )
