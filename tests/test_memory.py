"""Memory use stays constant, however long a run is and however many jobs a process trains.

`train/test_command.py` tests that no job leaves its network behind.
"""

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.runs import Run
from cifar_lab.train.callbacks import Saving
from tests.conftest import TINY, Lab


@pytest.fixture
def measure_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Measure resident memory in MB after each call of a method whose arguments meet a condition."""

    def measure(owner: type, name: str, due: Callable[..., bool] = lambda *_: True) -> list[float]:
        method, megabytes = getattr(owner, name), []

        def wrapped(*arguments: Any) -> None:
            method(*arguments)
            if due(*arguments):
                megabytes.append(_resident())

        monkeypatch.setattr(owner, name, wrapped)
        return megabytes

    return measure


def _resident() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that glibc keeps after it was freed is not a leak
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_steps(lab: Lab, measure_memory: Callable[..., list[float]]) -> None:
    megabytes = measure_memory(Saving, "on_train_batch_end", lambda _, trainer, *__: trainer.global_step % 500 == 0)
    outcome = lab(*TINY, "logger=none", "data.num_train=2224", "batch_size=2", "epochs=10")
    assert outcome.code == 0, outcome.stderr
    assert len(megabytes) == 20
    # The records of 8,000 steps take 1 MB.
    assert max(megabytes[4:]) - megabytes[3] < 4, megabytes


@pytest.mark.slow
def test_memory_is_flat_over_fifty_jobs(lab: Lab, measure_memory: Callable[..., list[float]]) -> None:
    megabytes = measure_memory(Run, "finish")
    outcome = lab("-m", *TINY, "logger=none", "epochs=1", "seed=range(0,50)")
    assert outcome.code == 0, outcome.stderr
    assert len(megabytes) == 50
    # Hydra keeps each job's configuration, 0.2 MB, until the sweep ends. A network with its optimizer's state takes 2
    # MB.
    assert max(megabytes[10:]) - megabytes[9] < 0.3 * 40, megabytes
