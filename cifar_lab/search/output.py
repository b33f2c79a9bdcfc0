"""The trials of a search as a table, on the terminal and as files, and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cifar_lab.runs.files import replacing, write_figure
from cifar_lab.search import figures
from cifar_lab.search.storage import SearchFolder
from cifar_lab.search.trials import TrialRecord, best_of
from cifar_lab.table.text import as_markdown
from cifar_lab.terminal.printing import print_table

_READING = (
    "Validation accuracy is that of the chosen epoch, on held-out training images, with one seed. The highest of many "
    "is optimistic: only runs with other seeds, which were not used for the choice, show how good the settings are. A "
    "pruned trial was worse than half of the finished ones at the same epoch; it has no result."
)


@dataclass(frozen=True)
class SearchReport:
    """The contents of a search's page."""

    title: str
    facts: Sequence[str]  # lines about the settings that its trials share and vary
    trials: Sequence[TrialRecord]  # in the order in which they were begun, at least one
    importances: Mapping[str, float]  # how much each key matters, summing to 1; empty if too few trials have finished
    logarithmic: frozenset[str]  # the keys that were drawn on a logarithmic scale
    command: str  # trains the best trial's settings with other seeds; empty without one

    def frame(self) -> pd.DataFrame:
        """A row of numbers for each trial, in the order in which they were begun; accuracies from 0 to 1."""
        return pd.DataFrame(
            [
                {
                    "trial": trial.number,
                    **trial.values,
                    "val/acc": trial.accuracy,
                    "state": trial.state,
                    "epochs": trial.epoch,
                    "last val/acc": trial.reports.get(trial.epoch),
                    "folder": trial.folder,
                    "error": trial.error,
                }
                for trial in self.trials
            ]
        )

    def table(self) -> list[dict[str, str]]:
        """A row of words for each trial: the finished ones by accuracy, then the others."""
        ranked = sorted(self.trials, key=lambda trial: (trial.accuracy is None, -(trial.accuracy or 0), trial.number))
        return [
            {
                "trial": str(trial.number),
                **trial.values,
                "val acc %": "-" if trial.accuracy is None else f"{100 * trial.accuracy:.2f}",
                "epochs": str(trial.epoch),
                "state": " ".join(trial.description.split()),
            }
            for trial in ranked
        ]

    def conclusion(self) -> list[str]:
        """The best trial, the importance of the axes, and the next command."""
        best = best_of(self.trials)
        if best is None:
            return ["no trial has finished"]
        values = " ".join(f"{key}={value}" for key, value in best.values.items())
        lines = [f"best: trial {best.number}, val acc {best.accuracy:.2%}, one seed: {values}"]
        if self.importances:
            shares = ", ".join(f"{key} {share:.0%}" for key, share in self.importances.items())
            lines.append(f"importance for the best trials (PED-ANOVA): {shares}")
        return [*lines, f"over other seeds: {self.command}"]


def report(search: SearchReport, folder: SearchFolder) -> None:
    """Print a search's table and conclusion, and write them: Markdown, CSV, and figures once a trial has finished.

    Raises:
        OSError: The folder cannot be written.
    """
    print_table(search.table(), left=(*search.trials[0].values, "state"))
    for line in search.conclusion():
        print(line)
    pictures = []
    if best_of(search.trials) is not None:
        importance = (search.importances, search.trials, search.logarithmic, search.title)
        pictures += write_figure(lambda: figures.history(search.trials, search.title), folder.history_figure, 120)
        pictures += write_figure(lambda: figures.importance(*importance), folder.importance_figure, 120)
    with replacing(folder.table_markdown) as file:
        file.write(_page(search, [path.name for path in pictures]))
    with replacing(folder.table_csv) as file:
        search.frame().to_csv(file, index=False, lineterminator="\n")
    print(f"- table and figures: {folder.table_markdown}", flush=True)


def _page(search: SearchReport, pictures: Sequence[str]) -> str:
    links = {str(trial.number): f"[{trial.folder}](<{trial.folder}>)" for trial in search.trials if trial.folder}
    rows = [{**row, "run": links.get(row["trial"], "")} for row in search.table()]
    *lines, command = search.conclusion()
    if search.command:
        command = f"{command.partition(':')[0]}:\n\n```sh\n{search.command}\n```"
    parts = [
        f"# {search.title}",
        "\n".join(f"- {fact}" for fact in search.facts),
        "\n".join(f"- {line}" for line in lines),
        command,
        as_markdown(pd.DataFrame(rows)),
        _READING,
        *(f"![{Path(name).stem}]({name})" for name in pictures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
