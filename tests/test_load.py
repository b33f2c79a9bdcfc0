"""Commands that read runs take time in proportion to the number of runs, and only seconds for thousands."""

import cProfile
import json
import pstats
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_lab import status, table
from cifar_lab.config import resolved
from cifar_lab.runs import Run, Sweep
from cifar_lab.table import text
from tests.conftest import Compose
from tests.kinds_of_runs import RESULT


@pytest.fixture
def config(composed: Compose) -> dict[str, Any]:
    """Configuration of a CNN's run."""
    return resolved(composed("data=cifar10"))


def _sweep(folder: Path, number: int, config: dict[str, Any]) -> None:
    """Write a sweep of compositions with five seeds each, all finished: one run and copies of it."""
    jobs = [[f"optimizer.lr={1 + index // 5}e-5", f"seed={index % 5}"] for index in range(number)]
    Sweep(folder).plan(jobs)
    options = {"data": "cifar10", "optimizer": "adam", "protocol": "holdout"}
    first = Run(folder / "00000")
    first.start(config, jobs[0], options, {"scheduler.T_max": "${epochs}"})
    for epoch in range(20):
        first.append_metrics({"epoch": epoch + 1, "train/loss": 2.0, "val/acc": 0.25})
    first.finish({**RESULT, "options": options, "epochs": 20})
    composition = first.composition()
    for index, job in enumerate(jobs):
        run = Run(folder / f"{index:05d}")
        if index:
            shutil.copytree(first.folder, run.folder)
        optimizer = {**config["optimizer"], "lr": (1 + index // 5) * 1e-5}
        own = {**config, "seed": index % 5, "optimizer": optimizer}
        run.composition_file.write_text(json.dumps({**composition, "overrides": job, "config": own}))


def _describe(folder: Path) -> int:
    status.describe_sweeps([folder])
    return len([status.describe_run(run) for run in Sweep(folder).runs()])


def _compare(folder: Path) -> int:
    comparison = table.compare_folders([folder])
    comparison.frame()
    text.markdown(comparison, folder.name, folder)
    return sum(len(row.records) for row in comparison.rows)


@pytest.mark.parametrize("read", [_describe, _compare])
@pytest.mark.parametrize(("few", "many"), [(40, 160), pytest.param(120, 960, marks=pytest.mark.slow)])
def test_work_grows_in_proportion_to_the_runs(
    tmp_path: Path, config: dict[str, Any], read: Callable[[Path], int], few: int, many: int
) -> None:
    calls = {}
    for number in (1, few, many):  # the first only fills the caches
        _sweep(tmp_path / f"{number}", number, config)
        profile = cProfile.Profile()
        assert profile.runcall(read, tmp_path / f"{number}") == number
        calls[number] = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    assert calls[many] < 1.1 * many / few * calls[few]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "limit"), [(1_000, 3), (10_000, 20)])
def test_thousands_of_runs_take_seconds(tmp_path: Path, config: dict[str, Any], number: int, limit: float) -> None:
    _sweep(tmp_path, number, config)
    for command in ("status", "table"):
        line = [sys.executable, "-m", f"cifar_lab.{command}", tmp_path]
        seconds = limit
        for _ in range(3):  # takes the minimum of three; one within the limit is enough
            if seconds >= limit:
                before = _processor_seconds()
                subprocess.run(line, check=True, capture_output=True)
                seconds = _processor_seconds() - before
        assert seconds < limit, command


def _processor_seconds() -> float:
    """Return the processor time of ended child processes, which other work on the machine does not affect."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
