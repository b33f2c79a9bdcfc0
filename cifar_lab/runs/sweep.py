"""The folder of a sweep: its plan and its runs."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cifar_lab.runs.files import fresh, replacing
from cifar_lab.runs.reading import from_json
from cifar_lab.runs.run import REPLACED, Run

# Keys about resuming and devices, which do not change the training.
HOW_IT_IS_RUN = ("resume=", "retrain=", "retry_", "jobs_per_device=")


class Sweep:
    """A folder, which need not exist, with the runs of a sweep and their comparison."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.plan_file = self.folder / "sweep.json"
        self.table_markdown = self.folder / "table.md"
        self.table_csv = self.folder / "table.csv"
        self.curves_figure = self.folder / "curves.png"
        self.accuracy_figure = self.folder / "accuracy.png"

    def plan(self, jobs: Sequence[Sequence[str]], folders: Sequence[Path | None] = ()) -> None:
        """Write the command line of each job and, if known, the folder of its run; an earlier plan is replaced."""
        runs = [None if folder is None else os.path.relpath(folder, self.folder) for folder in folders]
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.plan_file) as file:
            json.dump({"jobs": [list(job) for job in jobs], "runs": runs}, file, indent=1)

    def jobs(self) -> list[tuple[list[str], Run | None]]:
        """Return the command line of each job of the last plan, with its run; none if there is no readable plan.

        The run is in the folder that the plan names, which may belong to a different sweep, else it is the one with the
        same `job_key`.
        """
        try:
            plan = from_json(fresh(lambda: self.plan_file.read_text(encoding="utf-8")))
            jobs = [[str(line) for line in job] for job in plan["jobs"]]
            runs = [None if path is None else self.folder / str(path) for path in plan.get("runs", [])]
        except (OSError, ValueError, TypeError, KeyError):
            return []
        by_folder = [None if path is None or not is_run(path) else Run(path) for path in runs[: len(jobs)]]
        by_folder += [None] * (len(jobs) - len(by_folder))
        by_words = {} if all(by_folder) else self.runs_by_job()
        return [(job, run or by_words.get(job_key(job))) for job, run in zip(jobs, by_folder, strict=True)]

    def runs_by_job(self) -> dict[frozenset[str], Run]:
        """Return each run by its `job_key`; runs whose command line cannot be read are left out."""
        runs = {}
        for run in self.runs():
            with suppress(OSError, ValueError):
                runs[job_key(run.overrides())] = run
        return runs

    def runs(self) -> list[Run]:
        """Return every run in the folder and below, by name."""
        return list(find_runs(self.folder))


def is_run(folder: Path | str) -> bool:
    """Return whether a folder is a run's."""
    return (Path(folder) / "status.json").exists()


def find(folder: Path | str) -> Iterator[Run | Sweep]:
    """Yield every run and every planned sweep in a folder and below, by name; a sweep comes before its runs.

    Runs that were replaced are left out.
    """
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != REPLACED]
        if "status.json" in files:
            folders.clear()
            yield Run(path)
        elif "sweep.json" in files:
            yield Sweep(path)
        folders.sort()


def find_runs(folder: Path | str) -> Iterator[Run]:
    """Yield every run in a folder and below, by name."""
    return (one for one in find(folder) if isinstance(one, Run))


def find_sweeps(folder: Path | str) -> Iterator[Sweep]:
    """Yield every planned sweep in a folder and below, by name."""
    return (one for one in find(folder) if isinstance(one, Sweep))


def job_key(lines: Sequence[str]) -> frozenset[str]:
    """Return the identity of a sweep's job: its command line, except order, the sweep's name and `HOW_IT_IS_RUN`."""
    return frozenset(line for line in lines if not line.startswith(("name=", *HOW_IT_IS_RUN)))
