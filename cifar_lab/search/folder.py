"""The folder of a search: its trials as Optuna keeps them, and what shows them, beside the runs that they are."""

from pathlib import Path

from cifar_lab.runs.files import remove_unfinished


class SearchFolder:
    """A folder with the runs of a search.

    Args:
        folder: The directory; it need not exist.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.journal_file = self.folder / "trials.journal"
        self.table_markdown = self.folder / "search.md"
        self.table_csv = self.folder / "search.csv"
        self.history_figure = self.folder / "history.png"
        self.importance_figure = self.folder / "importance.png"
        self._locks = self.folder / ".trials"

    def make(self) -> None:
        """Make the folder, and remove what a process that was killed has left unfinished.

        Raises:
            OSError: It cannot be written.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder, older_than=3_600)

    def lock(self, number: int) -> Path:
        """The lock of who trains a trial; one that nobody living has is free."""
        return self._locks / f"{number}.lock"
