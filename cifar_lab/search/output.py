"""Report on a search: the table of its trials on the terminal and in files, and figures."""

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
    "Validation accuracy is that of the chosen epoch, on held-out training images, with one seed. The best of many "
    "trials is biased upwards: only runs with other seeds, which were not used to select, show how good its settings "
    "are. A pruned trial was below the median of the finished trials at the same epoch and has no result."
)


@dataclass(frozen=True)
class SearchReport:
    """The contents of a search's page."""

    title: str
    facts: Sequence[str]  # lines on the fixed settings and axes of the trials
    trials: Sequence[TrialRecord]  # in start order, at least one
    importances: Mapping[str, float]  # importance of each key, summing to 1; empty if too few trials have finished
    logarithmic: frozenset[str]  # keys that were sampled on a logarithmic scale
    command: str  # trains the best trial's settings with other seeds; empty without a finished trial

    def frame(self) -> pd.DataFrame:
        """Return a row of numbers per trial, in start order; accuracies from 0 to 1."""
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
        """Return a row of text per trial: finished trials by accuracy, then the others."""
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
        """Return lines on the best trial, the importance of each setting, and the next command."""
        best = best_of(self.trials)
        if best is None:
            return ["no trial has finished"]
        values = " ".join(f"{key}={value}" for key, value in best.values.items())
        lines = [f"best: trial {best.number}, val acc {best.accuracy:.2%}, one seed: {values}"]
        if self.importances:
            shares = ", ".join(f"{key} {share:.0%}" for key, share in self.importances.items())
            lines.append(f"importance of each setting (PED-ANOVA): {shares}")
        return [*lines, f"to train these settings with other seeds: {self.command}"]


def report(search: SearchReport, folder: SearchFolder) -> None:
    """Print a search's table and conclusion, and write them as Markdown and CSV, with figures if a trial has finished.

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
