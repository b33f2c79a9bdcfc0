"""What reads runs takes work in proportion to their number: eight times as many, about eight times the work."""

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab import status, table
from cifar_lab.analysis import tables
from cifar_lab.runs import Run, Sweep

FEW, MANY = 120, 960


def _sweep(folder: Path, number: int) -> None:
    """A sweep of compositions with three seeds each, all finished."""
    jobs = [[f"optimizer.lr={1 + index // 3}e-5", f"seed={index % 3}"] for index in range(number)]
    Sweep(folder).plan(jobs)
    for index, job in enumerate(jobs):
        run = Run(folder / f"{index:05d}")
        config = {
            "name": "load",
            "seed": index % 3,
            "epochs": 2,
            "optimizer": {"lr": (1 + index // 3) * 1e-5, "betas": [0.9, 0.999]},
            "scheduler": {"T_max": 2},
            "protocol": {"name": "holdout"},
        }
        options = {"data": "cifar10", "optimizer": "adam", "protocol": "holdout"}
        run.start(config, job, options, {"scheduler.T_max": "${epochs}"})
        run.append_metrics({"epoch": 1, "train/loss": 2.0, "val/acc": 0.25})
        accuracy = 0.5 + index / 10_000
        run.finish(
            {
                "test/acc": accuracy,
                "test/acc_final": accuracy,
                "val/acc": accuracy,
                "test_size": 10_000,
                "num_parameters": 10,
                "seconds": 1.0,
                "images_per_second": 1.0,
                "epochs": 2,
                "protocol": "holdout",
                "train_size": 45_000,
                "train_available": 45_000,
                "options": options,
                "precision": "32-true",
                "hardware": {"device_name": "a CPU"},
                "best_epoch": 1,
            }
        )


def _describe(folder: Path) -> int:
    status.describe_sweeps([folder])
    return len([status.describe_run(run) for run in Sweep(folder).runs()])


def _compare(folder: Path) -> int:
    comparison = table.compare_folders([folder])
    comparison.frame()
    tables.markdown(comparison, folder.name, folder)
    return sum(len(row.records) for row in comparison.rows)


@pytest.mark.parametrize("read", [_describe, _compare])
def test_work_grows_in_proportion_to_the_runs(tmp_path: Path, read: Callable[[Path], int]) -> None:
    calls = {}
    for number in (FEW, FEW, MANY):  # the first only warms what is cached for all
        folder = tmp_path / f"{number}{len(calls)}"
        _sweep(folder, number)
        profile = cProfile.Profile()
        assert profile.runcall(read, folder) == number
        calls[number] = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    assert calls[MANY] < 1.1 * MANY / FEW * calls[FEW]
